"""Makes the buckets that the tests of a real S3 server use: what no tool of a plain machine can sign."""

import datetime
import hashlib
import hmac
import os
import urllib.request

ENDPOINT = os.environ["ERNSTFALL_TEST_S3_ENDPOINT"]
KEY = os.environ["ERNSTFALL_TEST_S3_KEY"]
SECRET = os.environ["ERNSTFALL_TEST_S3_SECRET"]
VERSIONING = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)


def put(path, query="", body=b"", **more):
    """A signed PUT, as AWS's signature version 4 has it."""
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    day, digest = stamp[:8], hashlib.sha256(body).hexdigest()
    headers = {"host": ENDPOINT.split("//")[1], "x-amz-content-sha256": digest, "x-amz-date": stamp}
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"PUT\n{path}\n{query}\n{lines}\n{names}\n{digest}"
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    url = ENDPOINT + path + ("?" + query if query else "")
    urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers, method="PUT"))


if __name__ == "__main__":
    put("/plain")
    put("/versioned")
    put("/versioned", "versioning=", VERSIONING)
    put("/locked", x_amz_bucket_object_lock_enabled="true")
