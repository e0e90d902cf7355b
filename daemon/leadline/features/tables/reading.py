"""A CSV file's bytes → its header and its rows, in bounded memory, whatever the bytes are.

`sniff` looks at the first 64 KiB and says how the file is written; `CsvFile` then reads blocks of bytes and yields, in
their order, rows and refused rows. Each has a number, counted from 1 below the header, and the line of the file on
which it begins. The numbers depend on nothing but the bytes: a job that was cut off reads on after the row it stored.

The work is done by the csv module of the standard library. The complication is a quotation that is never closed: a
parser then takes the rest of the file for one field. Here a record may grow to the csv module's limit for a field
(131,072 characters) or to the end of the file; then its first line alone is refused, and the lines behind it are read
again from their beginning. This costs at most a second reading: the next quotation mark would have closed the first.

Undecodable bytes and NULs refuse their own row, not the file. What is no CSV file at all raises UnreadableFileError.
"""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from leadline.features.tables.columns import TEXT_CHARACTERS_MAX, JsonValue
from leadline_protocol.errors import LeadlineError, LeadReason

SAMPLE_BYTES: Final = 65_536
"""How much of a file `sniff` is to be given."""

SNIFFED_CHARACTERS_MAX: Final = 16_384
"""How much of the sample is searched for the delimiter: the search costs about 2 µs a character."""

LINE_CHARACTERS_MAX: Final = 1_048_576
"""A longer line is refused without being held."""

RAW_CHARACTERS_MAX: Final = 65_536
"""How much of a refused row is kept for the person who repairs it."""

COLUMNS_MAX: Final = 1_000

UNDECODABLE: Final = "bytes that are not text in the encoding of the file"

DELIMITERS: Final = ",;\t|"

CONTROLS_MAX: Final = 0.05
"""The largest share of control characters in a text. Of bytes that are packed, encrypted or random a tenth are such; a
text has them in some broken rows at most.
"""

_MAGIC: Final = {
    b"PK\x03\x04": "a spreadsheet or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls), or one with a password; save it as XLSX without one, or as CSV",
    b"\x1f\x8b": "a compressed file; unpack it first",
    b"%PDF": "a PDF file",
}

_TEXT_BYTES: Final = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\n\v\f\r"})

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class UnreadableFileError(LeadlineError):
    """The file cannot be read as a table; the message says why in a person's words."""


def storable(text: str) -> str:
    """The text with � for what no database holds."""
    return _UNSTORABLE.sub("\ufffd", text)


class CsvFormat(msgspec.Struct, frozen=True):
    """How a CSV file is written. A quotation mark within a quotation is doubled."""

    encoding: str
    """A codec of Python that drops the byte order mark where there is one."""
    delimiter: str
    quote: str = '"'
    line_end: str = "\n"
    """The character that ends each line: a line feed (with or without a carriage return before it) or, in files from
    old Macs, a carriage return."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row with as many values as the header has columns."""

    number: int
    line: int
    values: Sequence[JsonValue]
    """Texts, where the file is one of texts; an empty cell is an empty text or None."""


class RefusedRow(msgspec.Struct, frozen=True, gc=False):
    """One row that cannot become a lead, and why."""

    number: int
    line: int
    reason: LeadReason
    detail: str
    raw: str
    """Its values as one record of CSV with commas, or the beginning of it; a row that could not be taken apart is one
    value. What could not be decoded is �.
    """


def record(values: Iterable[str], characters_max: int = RAW_CHARACTERS_MAX) -> str:
    """Values as one record of CSV with commas, as far as it is kept and storable."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(values)  # with an end of line, as without one it would not quote those in a value
    return storable(text.getvalue()[:-2][:characters_max])


def values_of(text: str) -> Sequence[str]:
    """The values of a record; the last may be cut off."""
    return next(csv.reader(io.StringIO(text, newline="")), [""])


def sniff(
    sample: bytes,
    *,
    complete: bool,
    delimiter: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
) -> CsvFormat:
    """How the file is written whose beginning is `sample`; `complete` says that there is no more of it.

    Encoding: by the byte order mark, else UTF-8 or Windows-1252, whichever explains more of the sample. Delimiter:
    comma, semicolon, tab or bar. What is given is not guessed.

    Raises:
        UnreadableFileError: the file is empty, or what is given cannot be.

    """
    codec = text_encoding(sample, complete=complete, said=encoding)
    text = codecs.getincrementaldecoder(codec)(errors="replace").decode(sample)
    if not text.strip():
        raise UnreadableFileError("the file is empty")
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    quote = quote or '"'
    delimiter = delimiter or _delimiter(text, line_end)
    if delimiter == quote or {delimiter, quote} & {"\r", "\n", "\0", " "}:
        raise UnreadableFileError(f"fields cannot be delimited by {delimiter!r} and quoted by {quote!r}")
    return CsvFormat(codec, delimiter, quote, line_end)


def other_than_text(sample: bytes) -> str | None:
    """What a file is that begins with `sample` and is no text, in a person's words; None: it may be one."""
    for magic, kind in _MAGIC.items():
        if sample.startswith(magic):
            return kind
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    if 4 * sample.count(0) > len(sample):
        return "binary data, or UTF-16 without its byte order mark"
    controls = len(sample.translate(None, _TEXT_BYTES))
    return "binary data" if controls > CONTROLS_MAX * len(sample) else None


def text_encoding(sample: bytes, *, complete: bool, said: str | None = None) -> str:
    """The codec for a text that begins with `sample`: the one that is said, else the one that is found.

    Raises:
        UnreadableFileError: there is no codec of that name.

    """
    return _encoding(sample, complete=complete) if said is None else _text_codec(said)


def _text_codec(name: str) -> str:
    """The codec of an encoding that was asked for."""
    try:
        "a".encode(name)
        codec = codecs.lookup(name).name
        codecs.getincrementaldecoder(codec)
    except (LookupError, UnicodeError, ValueError):
        raise UnreadableFileError(f"there is no encoding {name!r}") from None
    return "utf-8-sig" if codec == "utf-8" else codec


def _encoding(sample: bytes, *, complete: bool) -> str:
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if sample.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    text = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode(sample, final=complete)
    beyond_ascii = sum(character > "\x7f" for character in text)
    broken = sum("\udc80" <= character <= "\udcff" for character in text)
    # Text in Windows-1252 hardly ever holds two bytes that are by chance one character of UTF-8.
    return "utf-8" if broken <= 4 * (beyond_ascii - broken) else "cp1252"


def _delimiter(text: str, line_end: str) -> str:
    """The delimiter that clevercsv finds in whole lines of the sample; a comma where there is only one column."""
    import clevercsv
    from clevercsv.exceptions import Error

    cut = text.rfind(line_end, 0, SNIFFED_CHARACTERS_MAX)
    lines = text[: cut + 1] if cut > 0 else text[:SNIFFED_CHARACTERS_MAX]
    try:
        found = clevercsv.Sniffer().sniff(lines, delimiters=DELIMITERS)
    except Error:
        return ","
    return found.delimiter if found is not None and found.delimiter in set(DELIMITERS) else ","


class CsvFile:
    """The header and the rows of a CSV file, read once, from blocks of bytes."""

    def __init__(self, blocks: Iterable[bytes], written: CsvFormat) -> None:
        """Read the header.

        Raises:
            UnreadableFileError: there is none, it is broken off, or it is too long.

        """
        self._lines = Lines(decoded(blocks, written.encoding), written.line_end)
        self._records = csv.reader(self._lines, delimiter=written.delimiter, quotechar=written.quote)
        self.headers: Final = self._read_headers()

    def rows(self, *, after: int = 0) -> Iterator[Row | RefusedRow]:
        """The rows below the header, those up to number `after` left out. To be called once."""
        lines, records, columns = self._lines, self._records, len(self.headers)
        number = 0
        while True:
            lines.forget()
            values: list[str] | None = None
            try:
                values = next(records)
            except StopIteration:
                if not lines.taken:
                    return
                refused = self._broken_off()
            except csv.Error as error:
                refused = self._broken_off(too_long="field limit" in str(error))
            except LineTooLongError:
                refused = self._broken_off(too_long=True)
            else:
                if lines.ended_within:
                    values = None
                    refused = self._broken_off()
                elif not values:
                    continue  # a blank line is no row
                else:
                    fault = _fault(values, columns, lines)
                    if fault is None:
                        number += 1
                        if number > after:
                            yield Row(number, lines.first, values)
                        continue
                    refused = fault
            number += 1
            if number > after:
                reason, detail = refused
                raw = record([lines.raw()] if values is None else values)
                yield RefusedRow(number, lines.first, reason, detail, raw)

    def _broken_off(self, *, too_long: bool = False) -> tuple[LeadReason, str]:
        """Refuse the first line of the record at hand, and have the lines behind it read again."""
        several = len(self._lines.taken) > 1
        self._lines.give_back()
        if too_long and not several:
            return LeadReason.FIELD_TOO_LONG, f"a field of more than {TEXT_CHARACTERS_MAX:,} characters"
        return LeadReason.RAGGED_ROW, "a quotation mark is not closed" if several else "the row is broken off"

    def _read_headers(self) -> tuple[str, ...]:
        try:
            headers = next((values for values in self._records if values), None)
        except LineTooLongError:
            text = f"the file begins with a line of more than {LINE_CHARACTERS_MAX:,} characters, and no header"
            raise UnreadableFileError(text) from None
        except csv.Error as error:
            if "field limit" in str(error):
                raise UnreadableFileError(f"a header has more than {csv.field_size_limit():,} characters") from None
            raise UnreadableFileError("there is a carriage return within the line of the header") from None
        if self._lines.ended_within:
            raise UnreadableFileError("a quotation mark in the header is not closed")
        if headers is None:
            raise UnreadableFileError("the file is empty")
        if len(headers) > COLUMNS_MAX:
            raise UnreadableFileError(f"the file has {len(headers):,} columns; at most {COLUMNS_MAX:,} can be read")
        return tuple(headers)


def _fault(values: list[str], columns: int, lines: "Lines") -> tuple[LeadReason, str] | None:
    if lines.tainted:
        return LeadReason.UNDECODABLE, UNDECODABLE
    if len(values) != columns:
        return LeadReason.RAGGED_ROW, f"{len(values)} fields; the header has {columns}"
    if lines.characters > TEXT_CHARACTERS_MAX:
        for position, value in enumerate(values, start=1):
            if len(value) > TEXT_CHARACTERS_MAX:
                detail = f"field {position} has {len(value):,} characters; at most {TEXT_CHARACTERS_MAX:,} fit"
                return LeadReason.FIELD_TOO_LONG, detail
    return None


class LineTooLongError(Exception):
    """The line at hand has more than LINE_CHARACTERS_MAX characters."""


def decoded(blocks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """The text of the blocks; a byte that is not text becomes half a surrogate pair, to be found again in its row."""
    errors = "surrogatepass" if encoding.startswith("utf-16") else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors=errors)
    for block in chain(blocks, (b"",)):
        try:
            yield decoder.decode(block, final=not block)
        except UnicodeError:
            yield "\udcff"  # an odd byte at the end of UTF-16


class Lines:
    """The lines of a text, with a memory of those that belong to the record at hand."""

    def __init__(self, texts: Iterator[str], line_end: str) -> None:
        self._texts = texts
        self._line_end = line_end
        self._ready: deque[str] = deque()
        self._tail = ""
        self._number = 0
        self._suspect = False
        """Whether the text last read holds anything that is not to be stored."""
        self.taken: list[str] = []
        self.first = 1
        """The number of the record's first line."""
        self.tainted = False
        self.characters = 0
        self.ended_within = False
        """Whether the text ended while the csv module asked for more of the record."""

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        while not self._ready:
            if not self._refill():
                self.ended_within = bool(self.taken)
                raise StopIteration
        line = self._ready.popleft()
        self._number += 1
        self.taken.append(line)
        self.characters += len(line)
        if self._suspect and not self.tainted:
            self.tainted = not _is_clean(line)
        if len(line) > LINE_CHARACTERS_MAX:
            raise LineTooLongError
        return line

    def forget(self) -> None:
        """A new record begins with the next line."""
        self.taken.clear()
        self.first = self._number + 1
        self.tainted, self.characters, self.ended_within = False, 0, False

    def give_back(self) -> None:
        """All lines of the record but its first are to be read again."""
        self._ready.extendleft(reversed(self.taken[1:]))
        self._number -= len(self.taken) - 1
        self._suspect = self._suspect or self.tainted
        del self.taken[1:]

    def raw(self) -> str:
        """The record as it stands in the file, as far as it is kept."""
        return storable("".join(self.taken)[:RAW_CHARACTERS_MAX].rstrip("\r\n"))

    def _refill(self) -> bool:
        text = next(self._texts, None)
        if text is None:
            tail, self._tail = self._tail, ""
            if tail:
                self._ready.append(tail)
            return bool(tail)
        if self._line_end == "\r":
            text = text.replace("\r", "\n")
        tail_is_suspect = self._suspect and not _is_clean(self._tail)
        self._suspect = tail_is_suspect or not _is_clean(text)
        lines = text.split("\n")
        lines[0] = self._tail + lines[0]
        self._tail = lines.pop()
        if len(self._tail) > LINE_CHARACTERS_MAX + 1:
            # The line is refused for its length already: of what follows, no more is held than says so.
            self._tail = self._tail[: LINE_CHARACTERS_MAX + 1]
        self._ready.extend(line + "\n" for line in lines)
        return True


def _is_clean(text: str) -> bool:
    """Whether a text has neither NULs nor halves of surrogate pairs."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
