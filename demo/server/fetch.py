"""Fetch a file that a client names by its address in the web instead of uploading it.

MCP clients have no other way to give a picture; a server without `--mcp` fetches nothing. Gradio
fetches such a file whole, whatever its size; here bytes, time and redirects have limits, and
addresses inside the server's network are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from pathlib import Path
from urllib.parse import urljoin, urlparse

import httpx
from gradio.processing_utils import PUBLIC_HOSTNAME_WHITELIST
from gradio.utils import get_upload_folder

from pipeline.errors import InputError

MAX_BYTES = 64 << 20  # as of an uploaded file
MAX_SECONDS = 20
MAX_REDIRECTS = 4
MAX_URL = 2048  # characters
at_once = asyncio.Semaphore(4)


async def fetch_file(url: str) -> str:
    """Return the path of a copy of the file at a web address, in Gradio's folder of uploads.

    url: http or https, at most MAX_URL characters. Raises InputError if it cannot be fetched: a
    host that is not public, another answer than 200, more than MAX_BYTES or MAX_SECONDS.
    """
    if len(url) > MAX_URL:
        raise InputError(f"The address of the file has more than {MAX_URL:,} characters.")
    folder = Path(get_upload_folder()) / hashlib.sha256(secrets.token_bytes(32)).hexdigest()
    target = folder / ("fetched" + Path(urlparse(url).path).suffix[:8])
    try:
        async with at_once, asyncio.timeout(MAX_SECONDS):
            folder.mkdir(parents=True, exist_ok=True)
            await _download(url, target)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError):
        target.unlink(missing_ok=True)
        folder.rmdir()
        raise InputError(
            "The file cannot be fetched from its address; upload it instead, or give an address"
            f" that any browser can open, of at most {MAX_BYTES >> 20} MB."
        ) from None
    return str(target)


async def _download(url: str, target: Path) -> None:
    """Write the file at `url` to `target`; raise ValueError or httpx's errors if that fails."""
    for _ in range(1 + MAX_REDIRECTS):
        async with (
            httpx.AsyncClient(transport=await _transport(url), timeout=MAX_SECONDS) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer,
        ):
            if answer.has_redirect_location:
                url = urljoin(url, answer.headers["location"])
                continue
            if answer.status_code != 200:
                raise ValueError(answer.status_code)
            number = 0
            with target.open("wb") as file:
                async for chunk in answer.aiter_raw():
                    number += len(chunk)
                    if number > MAX_BYTES:
                        raise ValueError("too large")
                    file.write(chunk)
            return
    raise ValueError("too many redirects")


async def _transport(url: str) -> httpx.AsyncBaseTransport | None:
    """Return the transport for `url`, bound to a public address of its host.

    None for the hosts that Gradio trusts, of Hugging Face. Raises ValueError for a host that has no
    public address and for another scheme than http and https.
    """
    import safehttpx  # type: ignore[import-untyped]  # ships no types

    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(parsed.scheme)
    if safehttpx.matches_domain_whitelist(parsed.host, PUBLIC_HOSTNAME_WHITELIST):
        return None
    return safehttpx.AsyncSecureTransport(await safehttpx.async_validate_url(parsed.host))
