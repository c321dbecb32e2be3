"""`portico.aws_lambda`: functions written for AWS Lambda behind API Gateway as handlers. Event and response are those
of its proxy integration, payload formats 1.0 and 2.0."""

from __future__ import annotations

import base64
import inspect
import json
import ssl
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ._errors import ConfigError, ResponseError
from ._handlers import is_async
from ._reports import name_of

if TYPE_CHECKING:
    from ._core import PeerCertificate, Request
    from ._handlers import Function
    from ._responses import Response

# What Lambda gives a function at the most, in seconds; for servers without a `handler_timeout`.
_LONGEST = 900.0
_STAGE = "$default"
_ACCOUNT = "000000000000"
# What a gateway works out itself, whatever a function says.
_OF_THE_GATEWAY = {"content-length", "transfer-encoding"}


def aws_lambda(function: Callable[[Any, Any], Any], *, version: str = "1.0") -> Function:
    """A function for AWS Lambda behind API Gateway, `(event, context)`, as a handler, unchanged.

    `version` is the format of event and response: `"1.0"`, that of REST APIs, or `"2.0"`, that of HTTP APIs and
    function URLs. A body that is UTF-8 is text in the event, any other base64 with `isBase64Encoded`. The context has
    what the one of Lambda has; `get_remaining_time_in_millis()` counts down from `handler_timeout`, or from 15
    minutes without one. With `"2.0"` whatever has no `statusCode` is sent as JSON, a `str` as it is.

    It runs as any `def` handler does, by the setting `dispatch`: several threads may call the function at once. Raises
    `ConfigError` for what cannot be called with two arguments, an `async def`, or another version. What is no response
    of the format is a `ResponseError` in the log and a 500 for the client.

    >>> import urllib.request
    >>> from portico import testing
    >>> def greet(event, context):
    ...     return {"statusCode": 200, "body": f"hello {event['queryStringParameters']['name']}"}
    >>> testing.call_on_server(aws_lambda(greet), lambda url: urllib.request.urlopen(url + "/?name=Ada").read())
    b'hello Ada'
    """
    if version not in ("1.0", "2.0"):
        raise ConfigError(f"aws_lambda: version is '1.0' or '2.0', not {version!r}")
    if not callable(function):
        raise ConfigError(f"aws_lambda: a function of event and context, not {type(function).__name__}")
    if is_async(function):
        raise ConfigError("aws_lambda: a def function, as on AWS Lambda, not an async def one")
    try:
        inspect.signature(function).bind(None, None)
    except ValueError:
        pass  # It does not tell, as many that are written in C.
    except TypeError as error:
        raise ConfigError(f"aws_lambda: it cannot be called with event and context ({error})") from None
    return _Lambda(function, version)


class _Lambda:
    """A handler that calls a Lambda function."""

    def __init__(self, function: Callable[[Any, Any], Any], version: str) -> None:
        self._function = function
        self._version = version
        self._name = name_of(function).rpartition(".")[2]

    def __call__(self, request: Request) -> Response:
        context = _Context(self._name, request)
        if self._version == "1.0":
            return _response_1(self._function(_event_1(request, context.aws_request_id), context))
        return _response_2(self._function(_event_2(request, context.aws_request_id), context))

    def __repr__(self) -> str:
        return f"portico.aws_lambda({self._function!r}, version={self._version!r})"


class _Context:
    """The second argument of a Lambda function."""

    function_version = "$LATEST"
    memory_limit_in_mb = "128"
    identity = None
    client_context = None

    def __init__(self, name: str, request: Request) -> None:
        self.function_name = name
        self.aws_request_id = str(uuid.uuid4())
        self.invoked_function_arn = f"arn:aws:lambda:local:{_ACCOUNT}:function:{name}"
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = f"portico/[{self.function_version}]"
        server = request.server
        limit = None if server is None else server._handler_timeout
        self._deadline = time.monotonic() + (_LONGEST if limit is None else limit)

    def get_remaining_time_in_millis(self) -> int:
        """How long the function may still take, in milliseconds."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def __repr__(self) -> str:
        return f"<portico Lambda context of {self.function_name}, request {self.aws_request_id}>"


class _Headers(dict[str, Any]):
    """Headers by lower-case name, found by any: gateways leave the case to the client, so functions ask for either."""

    def __missing__(self, name: str) -> Any:
        lower = name.lower()
        if lower == name:
            raise KeyError(name)
        return self[lower]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name.lower() if isinstance(name, str) else name)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


# ---- events


def _event_1(request: Request, request_id: str) -> dict[str, Any]:
    values = _Headers(request.multiValueHeaders)
    for name, value in _forwarded(request).items():
        values[name] = [value]
    path = request.path
    # As for a resource that takes every path, where no `portico.Router` knows better.
    parameters = dict(request.pathParameters) or ({"proxy": path[1:]} if path != "/" else {})
    resource = "/{proxy+}" if "proxy" in parameters else path
    body, is_base64 = _body(request)
    moment = time.time()
    return {
        "version": "1.0",
        "resource": resource,
        "path": path,
        "httpMethod": request.method,
        "headers": _Headers({name: several[-1] for name, several in values.items()}),
        "multiValueHeaders": values,
        "queryStringParameters": dict(request.queryStringParameters) or None,
        "multiValueQueryStringParameters": dict(request.multiValueQueryStringParameters) or None,
        "pathParameters": parameters or None,
        "stageVariables": None,
        "requestContext": {
            **_origin(request, request_id),
            "extendedRequestId": request_id,
            "httpMethod": request.method,
            "identity": {
                **dict.fromkeys(_IDENTITY),
                "sourceIp": _ip(request),
                "userAgent": request.headers.get("user-agent"),
                "clientCert": _client_certificate(request),
            },
            "path": request.root_path + path,
            "protocol": _protocol(request),
            "requestTime": _clf(moment),
            "requestTimeEpoch": int(moment * 1000),
            "resourceId": None,
            "resourcePath": resource,
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }


_IDENTITY = (
    "accessKey",
    "accountId",
    "apiKey",
    "apiKeyId",
    "caller",
    "cognitoAuthenticationProvider",
    "cognitoAuthenticationType",
    "cognitoIdentityId",
    "cognitoIdentityPoolId",
    "principalOrgId",
    "user",
    "userArn",
)


def _event_2(request: Request, request_id: str) -> dict[str, Any]:
    headers = _Headers(request.headers)
    cookies = headers.pop("cookie", "")
    headers.update(_forwarded(request))
    path = request.path
    body, is_base64 = _body(request)
    moment = time.time()
    certificate = _client_certificate(request)
    event = {
        "version": "2.0",
        "routeKey": "$default",
        # Below a mount there is no more of it than the rest, which is known decoded only.
        "rawPath": quote(path, safe="/~!$&'()*+,;=:@") if request.root_path else request.rawPath,
        "rawQueryString": request.queryString,
        "cookies": [cookie for part in cookies.split(";") if (cookie := part.strip())],
        "headers": headers,
        "queryStringParameters": {
            name: ",".join(values) for name, values in request.multiValueQueryStringParameters.items()
        },
        "pathParameters": dict(request.pathParameters),
        "requestContext": {
            **_origin(request, request_id),
            "authentication": None if certificate is None else {"clientCert": certificate},
            "http": {
                "method": request.method,
                "path": path,
                "protocol": _protocol(request),
                "sourceIp": _ip(request),
                "userAgent": request.headers.get("user-agent", ""),
            },
            "routeKey": "$default",
            "time": _clf(moment),
            "timeEpoch": int(moment * 1000),
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }
    # In this format what is not there is left out.
    for name in ("cookies", "queryStringParameters", "pathParameters", "body"):
        if not event[name]:
            del event[name]
    return event


def _origin(request: Request, request_id: str) -> dict[str, Any]:
    """What both formats have in their context, under the same names."""
    host = request.host
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return {
        "accountId": _ACCOUNT,
        "apiId": "portico",
        "domainName": name,
        "domainPrefix": name.partition(".")[0],
        "requestId": request_id,
        "stage": _STAGE,
    }


def _forwarded(request: Request) -> dict[str, str]:
    """What a gateway tells of its client, as this end or trusted proxies know it; what the client itself
    said of scheme and port does not count."""
    connection = request.connection
    if connection is None or request._port is None:
        return {}
    told = {"x-forwarded-port": str(request._port), "x-forwarded-proto": request.scheme}
    if not isinstance(connection.peername, str):
        # A gateway adds the address that it sees itself, which is that of a proxy in front of it.
        ip, before = connection.peername[0], request.headers.get("x-forwarded-for")
        told["x-forwarded-for"] = f"{before}, {ip}" if before else ip
    return told


def _ip(request: Request) -> str:
    """Empty where the client's address is not known, as on a Unix socket."""
    return request.client[0] if request.client else ""


def _protocol(request: Request) -> str:
    return "HTTP/2.0" if request.version == "2" else f"HTTP/{request.version}"


def _body(request: Request) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    try:
        return request.body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(request.body).decode(), True


def _client_certificate(request: Request) -> dict[str, Any] | None:
    shown: PeerCertificate | None = None if request.connection is None else request.connection.peer_certificate
    if shown is None:
        return None
    return {
        "clientCertPem": ssl.DER_cert_to_PEM_cert(shown.der),
        "subjectDN": shown.subject,
        "issuerDN": shown.issuer,
        "serialNumber": shown.serial,
        "validity": {"notBefore": _openssl(shown.not_before), "notAfter": _openssl(shown.not_after)},
    }


# Not by strftime, whose names of months are those of the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _clf(moment: float) -> str:
    """As in the Common Log Format: `09/Apr/2015:12:34:56 +0000`."""
    utc = time.gmtime(moment)
    return f"{utc.tm_mday:02}/{_MONTHS[utc.tm_mon - 1]}/{utc.tm_year}:{time.strftime('%H:%M:%S', utc)} +0000"


def _openssl(moment: int) -> str:
    """As OpenSSL writes it: `May 28 12:30:02 2019 GMT`."""
    utc = time.gmtime(moment)
    return f"{_MONTHS[utc.tm_mon - 1]} {utc.tm_mday:2} {time.strftime('%H:%M:%S', utc)} {utc.tm_year} GMT"


# ---- responses


def _response_1(answer: object) -> Response:
    if not isinstance(answer, dict) or "statusCode" not in answer:
        raise ResponseError(f"a Lambda function gives a dict with statusCode, not {_shown(answer)}")
    several = _lines(answer, "multiValueHeaders")
    single = _lines(answer, "headers")
    # What stands in both, as many frameworks write it, is sent once.
    named = {(name.lower(), value) for name, values in several.items() for value in values}
    single = {
        name: [value for value in values if (name.lower(), value) not in named] for name, values in single.items()
    }
    return _made(answer, single, several, "application/json", {"multiValueHeaders", "statusDescription"})


def _response_2(answer: object) -> Response:
    if not isinstance(answer, dict) or "statusCode" not in answer:
        try:
            body = answer if isinstance(answer, str) else json.dumps(answer)
        except (TypeError, ValueError) as error:
            raise ResponseError(f"what a Lambda function gives has to be JSON: {error}") from error
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": body}
    cookies = answer.get("cookies") or []
    if not isinstance(cookies, (list, tuple)) or not all(isinstance(cookie, str) for cookie in cookies):
        raise ResponseError("cookies: a list of str")
    several = {"set-cookie": list(cookies)} if cookies else {}
    # Format 2.0 has no multiValueHeaders; a gateway passes over them.
    known = {"cookies", "multiValueHeaders"}
    return _made(answer, _lines(answer, "headers"), several, "text/plain; charset=utf-8", known)


def _made(
    answer: dict[Any, Any],
    single: dict[str, list[str]],
    several: dict[str, list[str]],
    content_type: str,
    known: set[str],
) -> Response:
    """Our response; `content_type` is that of a body without one."""
    body, status = answer.get("body"), answer["statusCode"]
    if not isinstance(body, (str, type(None))):
        raise ResponseError(f"body: str or None, and isBase64Encoded for bytes, not {type(body).__name__}")
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if body and not any(name.lower() == "content-type" for name in (*single, *several)):
        single["content-type"] = [content_type]
    known |= {"statusCode", "headers", "body", "isBase64Encoded"}
    response = {
        "statusCode": status,
        "headers": single,
        "multiValueHeaders": several,
        "body": body,
        "isBase64Encoded": answer.get("isBase64Encoded", False) if body else False,
    }
    # So that what nobody knows is refused with the words of any other response.
    return response | {key: value for key, value in answer.items() if key not in known}


def _lines(answer: dict[Any, Any], key: str) -> dict[str, list[str]]:
    """The headers of a response; numbers and truth values are written as JSON has them, as a gateway does."""
    headers = answer.get(key) or {}
    if not isinstance(headers, dict):
        raise ResponseError(f"{key}: a dict, not {type(headers).__name__}")
    lines = {}
    for name, value in headers.items():
        if not isinstance(name, str):
            raise ResponseError(f"{key}: the name of a header is a str, not {name!r}")
        if isinstance(value, (list, tuple)) != (key == "multiValueHeaders"):
            wanted = "a list of values" if key == "multiValueHeaders" else "one value"
            raise ResponseError(f"{key}: {name}: {wanted}, not {value!r}")
        if name.lower() not in _OF_THE_GATEWAY:
            lines[name] = [_text(name, one) for one in (value if key == "multiValueHeaders" else [value])]
    return lines


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise ResponseError(f"header {name}: a str, not {value!r}")


def _shown(answer: object) -> str:
    return "a dict without it" if isinstance(answer, dict) else type(answer).__name__
