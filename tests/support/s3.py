"""An S3-compatible store for tests: moto's server with simulated failures and a record of requests."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import requests
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET, REGION = "pictures", "eu-central-1"
KEY, SECRET = "AKIAEXAMPLE", "hunter2hunter2"


class FakeS3:
    """A running store. The first `failures` requests get status 503; `requests` has (method, path) of each request.

    `hides_missing`: answer 403 for missing objects, as Amazon does to clients without permission to list.
    """

    def __init__(self, port: int = 0) -> None:
        self.failures = 0
        self.hides_missing = False
        self.requests: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", port, self, threaded=True, request_handler=_Silent)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.failures:
            self.failures -= 1
            start_response("503 Slow Down", [("Content-Type", "text/plain")])
            return [b"slow down"]
        answer: Iterable[bytes] = self._app(environ, _forbid(start_response) if self.hides_missing else start_response)
        return answer

    @property
    def server_flags(self) -> tuple[str, ...]:
        """Return the command-line flags that make a server use this store."""
        given = {"kind": "s3", "bucket": BUCKET, "endpoint_url": self.url, "region": REGION, "prefix": "from/flux"}
        given |= {"access_key": KEY, "secret_key": SECRET, "seconds": "30"}
        return tuple(part for name, value in given.items() for part in ("--set", f"storage.{name}={value}"))

    def delete_object(self, address: str) -> None:
        """Delete an object, as the bucket's owner may."""
        client = boto3.client("s3", REGION, endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET)
        with closing(client):
            client.delete_object(Bucket=BUCKET, Key=urlsplit(address).path.removeprefix(f"/{BUCKET}/"))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _forbid(start_response: Any) -> Any:
    """Replace status 404 by 403."""

    def start(status: str, *rest: Any) -> Any:
        return start_response("403 Forbidden" if status.startswith("404") else status, *rest)

    return start


class _Silent(WSGIRequestHandler):
    def log(self, *args: object) -> None:
        pass


@contextmanager
def run_s3(port: int = 0) -> Iterator[FakeS3]:
    """Run a store with an empty bucket."""
    store = FakeS3(port)
    try:
        requests.post(f"{store.url}/moto-api/reset", timeout=10)
        requests.put(f"{store.url}/{BUCKET}", data=LOCATION, timeout=10).raise_for_status()
        yield store
    finally:
        store.close()


LOCATION = f"<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"


def sign_with_botocore(address: str) -> str:
    """Return the signature that Amazon's own client makes for such an address at the same time."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    auth = S3SigV4QueryAuth(Credentials(KEY, SECRET), "s3", REGION, expires=int(query["X-Amz-Expires"]))
    request = AWSRequest(method="GET", url=address.partition("?")[0])
    request.context["timestamp"] = query["X-Amz-Date"]
    auth._modify_request_before_signing(request)
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))
