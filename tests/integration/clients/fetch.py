"""Python's urllib, and httpx with HTTP/2. Arguments: URLs. A line for each and both."""

import sys
import urllib.request

import httpx


def by_urllib(url):
    with urllib.request.urlopen(url) as response:
        return response.status, "HTTP/1.1", response.read().decode()


def by_httpx(url):
    with httpx.Client(http2=True) as client:
        response = client.get(url).raise_for_status()
        return response.status_code, response.http_version, response.text


for url in sys.argv[1:]:
    for fetch in by_urllib, by_httpx:
        try:
            print(fetch.__name__, url, *fetch(url))
        except (OSError, httpx.HTTPError) as error:
            print(fetch.__name__, url, repr(error))
