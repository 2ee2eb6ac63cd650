"""A page of a report for places that show it alone, such as MLflow's list of artifacts.

Its links to other files would lead nowhere there, and its frame may open nothing: they become text,
and pictures become part of the page. Links within the page are followed by a script, because
browsers refuse them in a frame like MLflow's.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from posixpath import dirname, join, normpath

ELSEWHERE = re.compile('<a\\b[^>]*?\\bhref="(?!#)([^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
PICTURE = re.compile('(<img\\b[^>]*?\\bsrc=")(?!data:)([^"]*)(")')
SCRIPT = """<script>
document.addEventListener("click", event => {
  const link = event.target.closest('a[href^="#"]');
  if (link) {
    event.preventDefault();
    document.getElementById(decodeURIComponent(link.hash.slice(1)))?.scrollIntoView();
  }
});
</script>
"""
KINDS = {"svg": "image/svg+xml", "png": "image/png"}


def page_alone(name: str, files: Mapping[str, bytes]) -> bytes:
    """The page `name` of a report's files, readable without the others."""
    text = files[name].decode()
    text = PICTURE.sub(lambda found: _with_picture(found, dirname(name), files), text)
    return (ELSEWHERE.sub(_as_text, text) + SCRIPT).encode()


def _as_text(found: re.Match[str]) -> str:
    address, text = found.groups()
    # Of what lies on the web the address stays readable.
    return f"{text} ({address})" if address.startswith(("http://", "https://")) else str(text)


def _with_picture(found: re.Match[str], folder: str, files: Mapping[str, bytes]) -> str:
    before, source, after = found.groups()
    kind, content = KINDS.get(source.rpartition(".")[2]), files.get(normpath(join(folder, source)))
    if kind is None or content is None:
        return str(found.group())
    return f"{before}data:{kind};base64,{b64encode(content).decode()}{after}"
