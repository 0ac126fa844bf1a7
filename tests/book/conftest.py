"""The built book, where there is one."""

from __future__ import annotations

import pytest

from tests.book import site as book_site


# Not for the session: the parsed pages of a book are millions of objects.
@pytest.fixture(scope="module")
def site() -> book_site.Site:
    if not book_site.is_built():
        pytest.skip(book_site.REASON)
    return book_site.Site(book_site.LOCATION)
