"""The reference reader of ini_reference.rs: how Python reads an INI file.

Reads one JSON object a line, {"text": ...}, and answers each with one line:
{"reader": result, "stdlib": result, "comparable": bool}. A result is {"defaults": {key: value},
"sections": [[name, {key: value}], ...]} or {"line": number of the first bad line}. Texts are bytes,
each written as the character of the same number, so any bytes can be sent and both major versions
of Python understand them the same way.

`reader` is a port of the rules of Python 2.7, which are the ones that matter, so that they can be
asked where only Python 3 is installed. `stdlib` is the library's own reader, to hold the port
against; `comparable` says whether the two must agree: under Python 2 always, under Python 3 as far
as its rules are still the same.
"""

import json
import re
import sys

PYTHON2 = sys.version_info[0] == 2

if PYTHON2:
    import ConfigParser as configparser
    import io
else:
    import configparser


class FirstBadLine(Exception):
    def __init__(self, line):
        Exception.__init__(self, line)
        self.line = line


class Python2Reader(object):
    """The rules of Python 2.7's RawConfigParser, optionxform=str, on bytes.

    Bytes under Python 3, too: their blanks are the six of ASCII as in Python 2, while those of
    Python 3's text are Unicode's.
    """

    HEADER = re.compile(br"\[(?P<header>[^]]+)\]")
    OPTION = re.compile(br"(?P<option>[^:=\s][^:=]*)\s*(?P<vi>[:=])\s*(?P<value>.*)$")

    def __init__(self):
        self.defaults = {}
        self.names = []
        self.sections = {}

    def read(self, data):
        options = None  # of the section at hand
        key = None  # what an indented line goes on with
        first_bad = None
        for number, line in enumerate(data.split(b"\n"), 1):
            # Slices instead of indices: an index of bytes is a number in Python 3.
            first = line[:1]
            if not line.strip() or first in (b"#", b";"):
                continue
            if line.split(None, 1)[0].lower() == b"rem" and first in (b"r", b"R"):
                continue
            if first.isspace() and options is not None and key:
                options[key].append(line.strip())
                continue
            header = self.HEADER.match(line)
            if header:
                options = self.section(header.group("header"))
                key = None
                continue
            if options is None:
                # The only fault at which the old reader stops at once.
                raise FirstBadLine(number)
            option = self.OPTION.match(line)
            if not option:
                first_bad = first_bad or number
                continue
            key = option.group("option").rstrip()
            options[key] = [self.value(option.group("value"))]
        if first_bad:
            raise FirstBadLine(first_bad)

    def section(self, name):
        if name not in self.sections and name == b"DEFAULT":
            return self.defaults
        if name not in self.sections:
            self.names.append(name)
            self.sections[name] = {}
        return self.sections[name]

    @staticmethod
    def value(text):
        position = text.find(b";")
        # At position 0 this looks at the last byte, as the old reader did: a `;` that begins the
        # value is a comment when a blank happens to end the line.
        if position != -1 and text[position - 1 :][:1].isspace():
            text = text[:position]
        text = text.strip()
        return b"" if text == b'""' else text

    def result(self):
        def joined(options):
            return {key: b"\n".join(parts) for key, parts in options.items()}

        return shape(joined(self.defaults), [(name, joined(self.sections[name])) for name in self.names])


def shape(defaults, sections):
    def texts(options):
        return {as_text(key): as_text(value) for key, value in options.items()}

    return {"defaults": texts(defaults), "sections": [[as_text(name), texts(options)] for name, options in sections]}


def as_text(data):
    return data.decode("latin-1") if isinstance(data, bytes) else data


def read_port(data):
    reader = Python2Reader()
    reader.read(data)
    return reader.result()


def read_stdlib(data):
    if PYTHON2:
        parser = configparser.RawConfigParser()
    else:
        parser = configparser.RawConfigParser(
            delimiters=("=", ":"),
            comment_prefixes=("#", ";"),
            inline_comment_prefixes=None,
            strict=False,
            empty_lines_in_values=False,
        )
    parser.optionxform = str
    try:
        if PYTHON2:
            parser.readfp(io.BytesIO(data))
        else:
            parser.read_string(data.decode("latin-1"))
    except configparser.MissingSectionHeaderError as error:
        raise FirstBadLine(error.lineno)
    except configparser.ParsingError as error:
        raise FirstBadLine(error.errors[0][0])

    # Not through items(): that one mixes the defaults into every section.
    def own(options):
        return {key: value for key, value in options.items() if key != "__name__"}

    return shape(own(parser._defaults), [(name, own(options)) for name, options in parser._sections.items()])


def python3_agrees(data):
    """Whether Python 3 reads this as Python 2 did. Errs on the side of no."""
    # Its blanks are Unicode's, and include some control characters.
    if re.search(br"[^\t\r\n -~]", data):
        return False
    # What an indented line that is no continuation means: there, Python 3 takes keys and headers.
    continues = False
    for line in data.split(b"\n"):
        first, content = line[:1], line.strip()
        if not content or first in (b"#", b";"):
            # Python 3 ends a value here.
            continues = False
        elif first.isspace():
            # Python 3 knows indented comments.
            if not continues or content[:1] in (b"#", b";"):
                return False
        elif first == b"[":
            # Newer versions go on to the last bracket of the line, older ones to the first.
            if line.count(b"]") > 1:
                return False
            continues = False
        else:
            # No comment behind a value, no quotes for nothing, no rem. A line without separator leaves
            # Python 3's mind on the option above.
            if b";" in line or b'""' in line or content[:3].lower() == b"rem":
                return False
            continues = line[:1] not in (b"=", b":") and (b"=" in line or b":" in line)
    return True


def attempt(read, data):
    try:
        return read(data)
    except FirstBadLine as error:
        return {"line": error.line}


def main():
    source = sys.stdin if PYTHON2 else sys.stdin.buffer
    # All of it before the first answer: the other side writes everything before it reads.
    for line in source.read().split(b"\n"):
        if line:
            data = json.loads(line.decode("utf-8"))["text"].encode("latin-1")
            answer = {
                "reader": attempt(read_port, data),
                "stdlib": attempt(read_stdlib, data),
                "comparable": PYTHON2 or python3_agrees(data),
            }
            print(json.dumps(answer, sort_keys=True))


main()
