"""Take the screenshots of the documents: python docs/screens.py [FOLDER].

Starts a server with the embedded model and drives the page in headless Chromium. Without FOLDER
writes docs/NAME.png; with it, FOLDER/NAME.png, NAME-narrow.png (a phone's width) and NAME-dark.png
(the dark scheme), each of the whole page.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PORT = 7959
CHROMIUM = "/usr/bin/chromium"
WORDS = {  # by browser language: the Generate button, and the tabs that are visited
    "en-US": ("Generate", "Arena", "From zero", "PNG info", "Kernels"),
    "zh-CN": ("生成", "竞技场", "从零讲起", "图片信息", "内核"),
}
SCENE = "a penguin to the left of a red apple on a yellow background"


@contextmanager
def server() -> Iterator[str]:
    """Run a server with the embedded model, and yield its URL."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(PORT)]
    with tempfile.TemporaryDirectory() as place:
        running = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True)
        try:
            while "draws with" not in running.stdout.readline():
                pass
            yield f"http://127.0.0.1:{PORT}/"
        finally:
            running.terminate()
            running.wait()


def tab(page: Page, language: str, number: int) -> None:
    """Select a tab. number: the index of its name in WORDS[language]."""
    page.get_by_role("tab", name=WORDS[language][number], exact=True).click()


def generate(page: Page, prompt: str, seed: str) -> None:
    """Draw a picture in the tab Generate, and wait until it is done."""
    page.fill("#prompt textarea", prompt)
    page.fill("#seed :is(input, textarea)", seed)
    page.click("#generate")
    page.wait_for_selector("#status .gb-done")


def the_page(page: Page, language: str) -> None:
    """Show the tab Generate with a finished picture."""
    generate(page, "a red apple on a blue background", "7")


def inside(page: Page, language: str) -> None:
    """Show the tab Look inside: a branch with another prompt, and the attention to a word."""
    generate(page, SCENE, "5")
    page.click("#look")
    page.wait_for_selector(".gbi-a[src]")
    slider = page.locator(".gbi-main .gbi-slider")
    slider.fill("9")
    slider.dispatch_event("change")
    page.fill("#inside-prompt textarea", SCENE.replace("red apple", "lemon"))
    page.click("#inside-go")
    page.wait_for_selector(".gbi-node >> nth=1")
    page.wait_for_timeout(1500)
    page.locator(".gbi-picks select").first.select_option("every")
    page.click(".gbi-word:has-text('penguin')")
    page.mouse.move(2, 2)


def arena(page: Page, language: str) -> None:
    """Show the tab Arena after a race of samplers."""
    tab(page, language, 1)
    page.click("#arena-go")
    page.wait_for_selector("#arena-status .gb-done")


def zero(page: Page, language: str) -> None:
    """Show the tab From zero with the chapter on the UNet and a finished picture."""
    tab(page, language, 2)
    page.click("#zero-unet-button")
    page.click("#zero-u-draw")
    page.wait_for_selector("#zero-u-status .gb-done")


def verify(page: Page, language: str) -> None:
    """Show the tab PNG info with the verdict on a picture that was just drawn."""
    generate(page, "蓝色背景上的红苹果", "7")
    file = page.get_attribute("#gallery img", "src")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "apple.png"
        picture.write_bytes(page.request.get(file).body())
        tab(page, language, 3)
        page.set_input_files("#info-file input[type=file]", str(picture))
        page.click("#info-verify")
        page.wait_for_selector("#info-verdict :is(.gb-verdict, .gb-kind, h3)")
        page.wait_for_timeout(4000)


def kernels(page: Page, language: str) -> None:
    """Show the tab Kernels: which backends run here, and what was measured on a GPU."""
    tab(page, language, 4)
    page.wait_for_selector("#bench .gb-row")
    page.wait_for_timeout(700)


SCREENS = {  # by file name: what to do on the page, the browser's language, height in pixels
    "page": (the_page, "en-US", 1400),
    "inside": (inside, "en-US", 1500),
    "arena": (arena, "zh-CN", 1400),
    "zero": (zero, "en-US", 1500),
    "verify": (verify, "zh-CN", 1100),
    "kernels": (kernels, "en-US", 1500),
}


def main(folder: str | None = None) -> None:
    """Take every screenshot of SCREENS, into docs/ or `folder`, which must exist."""
    looks = [("", 1400, "light")]
    if folder:
        looks += [("-narrow", 390, "light"), ("-dark", 1400, "dark")]
    place = Path(folder) if folder else ROOT / "docs"
    with server() as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (act, language, height) in SCREENS.items():
            for ending, width, scheme in looks:
                page = chromium.new_page(
                    locale=language,
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                )
                page.set_default_timeout(180_000)
                page.goto(url)
                page.wait_for_selector(f"#generate:has-text('{WORDS[language][0]}')")
                act(page, language)
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=place / f"{name}{ending}.png", full_page=bool(folder))
                print(place / f"{name}{ending}.png", flush=True)
                page.close()
        chromium.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
