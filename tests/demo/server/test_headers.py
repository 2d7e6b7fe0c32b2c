"""The security headers in a real browser: the page works under them, and who may show it."""

from functools import partial

import httpx
import pytest

import demo.serving  # noqa: F401 - fills TEXTS, which `visit` reads
from demo.server.guard import EMBEDDERS

OURS = "https://ours.test/"


def fulfil(answer, route):
    """Answer a request of the browser without the network."""
    route.fulfill(**answer)


@pytest.fixture
def shown_in(browser, server):
    """shown_in(address) says whether a page at `address` shows one with our headers in a frame."""
    policy = httpx.get(server.url).headers["content-security-policy"]
    context = browser.new_context()

    def show(address):
        page = context.new_page()
        refusals = []
        page.on("console", lambda message: refusals.append(message.text))
        frame = f'<body><iframe src="{OURS}"></iframe></body>'
        for url, body, headers in (
            (address, frame, {}),
            (OURS, "<p id=here>here</p>", {"content-security-policy": policy}),
        ):
            answer = {"body": body, "content_type": "text/html", "headers": headers}
            page.route(url, partial(fulfil, answer))
        page.goto(address)
        for _ in range(600):
            if any("frame-ancestors" in text for text in refusals):
                return False
            if page.frame_locator("iframe").locator("#here").count():
                return True
            page.wait_for_timeout(50)
        raise AssertionError(f"neither shown nor refused: {refusals}")

    yield show
    context.close()


@pytest.mark.parametrize("host", ["huggingface.co", "someone-glassbox.hf.space"])
def test_a_space_shows_the_page_in_a_frame(shown_in, host):
    assert shown_in(f"https://{host}/")


@pytest.mark.parametrize("host", ["evil.example", "huggingface.co.evil.example", "nothf.space"])
def test_no_other_site_shows_the_page_in_a_frame(shown_in, host):
    assert not shown_in(f"https://{host}/")


def test_a_page_that_is_led_to_another_host_is_stopped(visit):
    page = visit()
    blocked = page.evaluate("""async () => {
      const seen = [];
      document.addEventListener('securitypolicyviolation', e => seen.push(e.effectiveDirective));
      try { await fetch('https://evil.example/'); } catch {}
      const script = document.createElement('script');
      script.src = 'https://evil.example/x.js';
      document.head.append(script);
      const image = document.createElement('img');
      image.src = 'https://evil.example/x.png';
      document.body.append(image);
      for (let i = 0; i < 100 && seen.length < 3; i++) await new Promise(r => setTimeout(r, 50));
      return seen.sort();
    }""")
    assert blocked == ["connect-src", "img-src", "script-src-elem"]
    page.breaks_policy.clear()


def test_who_may_embed_is_named_by_scheme_and_host():
    for source in EMBEDDERS.split():
        assert source.startswith("https://") and source.count(".") >= 1
