"""A page as a visitor has it."""

from contextlib import contextmanager


@contextmanager
def visited(browser, page, **options):
    """Open a file, or the address of a page on this machine, in a window of its own.

    Afterwards nothing has gone wrong in it, and it asked nothing of the network or of another server.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    tab = context.new_page()
    requests, troubles = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: troubles.append(message.text))  # the policy reports here what it has stopped
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("dialog", lambda dialog: troubles.append(dialog.message))
    served = isinstance(page, str)
    tab.goto(page if served else page.as_uri())
    tab.wait_for_load_state("load")
    yield tab
    context.close()
    assert troubles == []
    assert requests
    own = ("data:", "blob:", page if served else "file:")
    assert [url[:60] for url in requests if not url.startswith(own)] == []
