"""The site: `sphinx-build -W -b html docs OUT`."""

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "poison_jax"
html_show_copyright = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_build", "images"]

html_theme = "furo"
html_title = "poison_jax"
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Pages without a kernel in their head are text; notebooks are executed, once for each change of theirs.
nb_execution_mode = "cache"
nb_execution_timeout = 240
nb_execution_raise_on_error = True

autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_preprocess_types = False
napoleon_use_ivar, napoleon_attr_annotations = True, False

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
PROTECTED = re.compile(r"(`[^`]+`|\*\*[^*\n]+\*\*|(?<!\w)\*\w[\w ]*\*(?!\w))")
FIELD = re.compile(r"    (\w+): .*?  # (.+)")


def docstring(app, what, name, obj, options, lines):
    """The project's docstrings are plain text with Markdown's backticks and tables; autodoc reads reST."""
    blocks = []
    for line in "\n".join(lines).split("\n\n"):
        blocks.append(_block(line, in_section=bool(blocks) and blocks[-1][1]))
    lines[:] = "\n\n".join(text for text, _ in blocks).split("\n")
    for i, line in enumerate(lines[:-1]):
        if line in ("Returns:", "Yields:"):  # a colon in what follows is no end of a type
            lines[i + 1] = "    : " + lines[i + 1].lstrip()
    if hasattr(obj, "_fields"):  # a named tuple says what its fields are in comments
        fields = filter(None, map(FIELD.fullmatch, inspect.getsource(obj).split("\n")))
        lines += ["", "Attributes:", *(f"    {field[1]}: {_escape(field[2])}" for field in fields), ""]


def _block(text, in_section):
    """A paragraph as reST, and whether what is indented after it belongs to a section (`Args:`)."""
    first = next((line for line in text.split("\n") if line), "")
    indent = first[: len(first) - len(first.lstrip())]
    in_section = bool(SECTION.match(first)) or (in_section and bool(indent))
    if first.lstrip().startswith(">>>"):
        return text, in_section
    if first.lstrip().startswith("|"):
        return _table(text.strip("\n").split("\n"), indent), in_section
    if indent and not in_section:  # a formula or code
        return "::\n\n" + text, in_section
    return _escape(text), in_section


def _escape(text):
    """Backticks as reST's literals; what reST takes for markup elsewhere, as it stands."""
    parts = PROTECTED.split(text)
    for i, part in enumerate(parts):
        if part.startswith("`"):
            parts[i] = f"`{part}`"
        elif not i % 2:
            # Names of arguments (`*args:`) are napoleon's.
            parts[i] = re.sub(r"(?<=\S)\*|\*(?!\w+:)|\||(?<=\w)_(?!\w)", r"\\\g<0>", part)
    # A letter and a full stop would be an item of a list.
    return re.sub(r"(?<=: )(?=[A-Z]\.$)", r"\\", "".join(parts), flags=re.MULTILINE)


def _table(lines, indent):
    """A Markdown table as a list table; a pipe separates cells where blanks are on both of its sides."""
    rows = [
        [_escape(cell.strip()) for cell in re.split(r"(?<=\s)\|(?=\s)", line.strip()[1:-1])]
        for line in lines
        if not re.fullmatch(r"[\s|:-]+", line)
    ]
    made = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        made += [f"   {'* -' if not i else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(indent + line for line in made)


def setup(app):
    app.connect("autodoc-process-docstring", docstring, priority=100)
