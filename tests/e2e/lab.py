"""JupyterLab, as the hand and the eye have it."""

from playwright.sync_api import Page, expect


def compute(page: Page, server_url: str) -> None:
    """Run ``6*7`` in a new notebook of a server and see 42."""
    page.goto(f"{server_url}/lab?reset")  # not the notebook of the journey before
    # The Lab shows an idle kernel before there is one; what is run then is lost.
    with page.expect_websocket(lambda socket: "/channels" in socket.url, timeout=90_000) as opened:
        page.locator(".jp-LauncherCard[data-category='Notebook']").first.click(timeout=60_000)
    opened.value.wait_for_event("framereceived", timeout=60_000)
    page.locator("[data-status='idle'].jp-Notebook-ExecutionIndicator").wait_for(timeout=60_000)
    cell = page.locator(".jp-Notebook .cm-content").first
    cell.click(timeout=60_000)
    page.keyboard.type("6*7")
    expect(cell).to_contain_text("6*7")
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea-output")
    expect(output.first).to_contain_text("42", timeout=60_000)
