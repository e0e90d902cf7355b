"""A PDF of lines of text, as far as ISO 32000 asks for: objects, a table of where they are, and where that is.

The font is Helvetica, which every reader has, with the characters of Windows' western code page: € and ü are among
them, and what is not becomes a question mark.
"""

from typing import NamedTuple

PAGE = (595, 842)
"""A4 in points, of which an inch has 72; heights are counted from below."""


class Line(NamedTuple):
    """A line of text, by where it begins; `size` is that of the font."""

    x: int
    y: int
    text: str
    size: int = 10


def document(pages):
    """The bytes of a PDF; a page is a list of lines."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for lines in pages:
        text = b"\n".join(written(line) for line in lines)
        page = f"/MediaBox [0 0 {PAGE[0]} {PAGE[1]}] /Resources << /Font << /F 3 0 R >> >>"
        contents = len(objects) + 2
        objects.append(f"<< /Type /Page /Parent 2 0 R {page} /Contents {contents} 0 R >>".encode())
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(text), text))
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, each in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def written(line):
    """The commands that put a line of text on a page."""
    text = line.text.encode("cp1252", "replace")
    for special in (b"\\", b"(", b")"):
        text = text.replace(special, b"\\" + special)
    return b"BT /F %d Tf %d %d Td (%b) Tj ET" % (line.size, line.x, line.y, text)
