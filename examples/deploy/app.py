"""A handler, for portico.toml beside it."""


def hello(request):
    return {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": f"hello {request.path}\n"}
