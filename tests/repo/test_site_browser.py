"""The site of `make docs` in a browser: diagrams are drawn, and nothing is asked of another server."""

import functools
import http.server
import threading

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def site(root):
    """The address of a server of site/."""
    if not (root / "site" / "index.html").exists():
        pytest.skip("there is no site: make docs builds it")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("width", [1280, 390])
def test_diagrams_are_drawn_and_no_other_server_is_asked(chromium, site, width):
    context = chromium.new_context(viewport={"width": width, "height": 900})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site}/concepts/")
    page.wait_for_function("() => [...document.querySelectorAll('div.mermaid')].length === 4")
    sizes = page.locator("div.mermaid").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert all(height > 40 for height in sizes), "what is not drawn has no height"
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
    assert asked, "no request was seen"
    assert [url for url in asked if not url.startswith((site, "data:", "blob:"))] == []
