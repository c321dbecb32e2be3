"""HTTP/2 frames made by hand, where no client would send them or show them."""

from __future__ import annotations

import contextlib
import ssl

import h2.config
import h2.connection
import h2.events
import h2.settings
from hyperframe.frame import ExtensionFrame, HeadersFrame

from clients import Reply


class H2:
    """HTTP/2 frames by hand, on a `Wire`."""

    def __init__(self, wire, **config):
        self.wire, self.events = wire, []
        # What is left of a body that was to be sent.
        self.unsent = b""
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            **config,
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()

    def flush(self):
        self.wire.sock.sendall(self.connection.data_to_send())

    def open(self, *headers, method="GET", path="/", authority="localhost", scheme="https", end=True):
        """Begins a request and returns its stream's number."""
        stream = self.connection.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", scheme), (":path", path)]
        if authority:
            pseudo.append((":authority", authority))
        self.connection.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def data(self, stream, data, end=False):
        self.connection.send_data(stream, data, end_stream=end)
        self.flush()

    def send_body(self, stream, data):
        """Sends as much as the windows have room for, and waits for room, until all is sent or the connection ends. What is
        left then, or where the wait takes too long, is `unsent`."""
        self.unsent = data
        while self.unsent:
            room = self.connection.local_flow_control_window(stream)
            if room:
                size = min(room, self.connection.max_outbound_frame_size, len(self.unsent))
                self.data(stream, self.unsent[:size])
                self.unsent = self.unsent[size:]
            elif not self.wait_for((h2.events.WindowUpdated, h2.events.StreamEnded, h2.events.StreamReset)):
                return

    def windows(self, size):
        """Lets every stream have so many bytes under way, and waits until the server knows."""
        self.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size})
        self.flush()
        self.wait_for(h2.events.SettingsAcknowledged)

    def wait_for(self, kind, stream=None):
        """Reads until such an event came. None when the server closes before that."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            frame = self.frame()
            if not frame:
                return None
            for event in self.connection.receive_data(frame):
                if isinstance(event, h2.events.DataReceived):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, h2.events.ConnectionTerminated):
                    # h2 takes GOAWAY for the end, but what is in flight goes on (RFC 9113 section 6.8).
                    self.connection.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
                self.events.append(event)
            # A server that has said goodbye may be gone: what it has sent is read all the same.
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                self.flush()

    def wait_until_closed(self):
        """Reads, and acknowledges what has to be, until the server closes."""
        assert self.wait_for(()) is None

    def frame(self):
        """The bytes of the next frame; none at the end."""
        head = self.wire.file.read(9)
        return head + self.wire.file.read(int.from_bytes(head[:3], "big"))

    def reply(self, stream):
        """The whole response on a stream."""
        head = self.wait_for((h2.events.ResponseReceived, h2.events.StreamReset), stream)
        assert isinstance(head, h2.events.ResponseReceived), f"no response: {head}"
        body = self.body(stream)
        headers = list(head.headers)
        status = int(headers.pop(0)[1])
        return Reply(status, headers, body, "HTTP/2")

    def body(self, stream):
        """What comes on a stream until it ends."""
        body = b""
        while True:
            event = self.wait_for((h2.events.DataReceived, h2.events.StreamEnded, h2.events.StreamReset), stream)
            assert event, "the connection ends before the response does"
            if not isinstance(event, h2.events.DataReceived):
                return body
            body += event.data


def head(path="/", method="POST", *more):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *more]
    # Without the dynamic table, so that every block stands for itself.
    return b"".join(literal(name, value) for name, value in fields)


def literal(name, value):
    """A header that is not indexed (RFC 7541 section 6.2.2)."""
    return b"\x00" + string(name) + string(value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return integer(len(data), 7) + data


def integer(number, bits, flags=0):
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([flags | number])
    out, number = bytearray([flags | most]), number - most
    while number >= 128:
        out.append(number % 128 | 128)
        number //= 128
    return bytes([*out, number])


def opens(stream, path="/", method="POST", end=False, *more):
    return HeadersFrame(stream, data=head(path, method, *more), flags=["END_HEADERS", *(["END_STREAM"] if end else [])])


def raw(kind, stream, body, flags=0):
    """A frame of any kind."""
    frame = ExtensionFrame(kind, stream, flag_byte=flags, body=body)
    frame.body_len = len(body)
    return frame
