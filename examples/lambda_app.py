"""A function for AWS Lambda, as it would be deployed, served from this program.

Ctrl-C stops it.
"""

import base64

import portico.testing


def greet(event, context):
    name = (event["queryStringParameters"] or {}).get("name", "you")
    if event["body"] is not None:
        body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
        text = f"{len(body)} bytes\n"
    else:
        text = f"hello {name}, {event['httpMethod']} {event['path']}\n"
    headers = {"Content-Type": "text/plain", "X-Request-Id": context.aws_request_id}
    return {"statusCode": 200, "headers": headers, "body": text}


if __name__ == "__main__":
    # For your certificates: portico.Server, see readme.py.
    with portico.testing.server(portico.aws_lambda(greet)) as running:
        print(f"curl --insecure '{running.url}/greet?name=Ada'")
        print(f"curl --insecure --data 'a=b' {running.url}/upload", flush=True)
        running.server.serve_forever()
