"""What may be said of a store's address, which may hold a password."""

from __future__ import annotations

import re
import urllib.parse

_SECRET_NAME = re.compile("pass|pwd|token|secret|key|auth|credential", re.IGNORECASE)


def is_http(uri: str) -> bool:
    """Whether a URI is one of the web."""
    return uri.startswith(("http://", "https://"))


def shown(uri: str) -> str:
    """The URI without user, password and query, or its scheme alone where that is in doubt."""
    scheme, separator, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    if scheme.startswith("sqlite"):
        return f"{scheme}{separator}{place}"
    if "@" in query:  # perhaps the question mark is one of the password
        return f"{scheme}://..."
    return f"{scheme}{separator}{place.rpartition('@')[2]}"


def one_line(error: BaseException, uri: str) -> str:
    """The message of an error in a single line, without what is secret in a store's URI."""
    said = " ".join(str(error).split()).replace(uri, shown(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        said = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", said)
    return said[:200] or type(error).__name__


def _secrets(uri: str) -> set[str]:
    """Password and tokens, as they are written and as they are meant, and the parts of a password.

    A password with an `@` that was not escaped may be taken for one that ends there.
    """
    place = uri.partition("://")[2]
    user, _, password = place.rpartition("@")[0].partition(":")
    fields = urllib.parse.parse_qsl(place.partition("?")[2])
    found = {password or user, *password.split("@")}
    found |= {value for name, value in fields if _SECRET_NAME.search(name)}
    forms = (str, urllib.parse.quote, urllib.parse.quote_plus, urllib.parse.unquote)
    return {form(secret) for secret in found for form in forms} - {""}
