"""Markup of a page: what is text stays text."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from report_stores import png

from plots.report import page
from plots.report.page import Cell
from poison_jax.errors import UserError

HOSTILE = "</td><script>alert(1)</script>\"'&"
SAFE = "&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;"


@pytest.mark.parametrize(
    "markup",
    [
        page.paragraph(HOSTILE),
        page.section(HOSTILE, "", id=HOSTILE),
        page.fold(HOSTILE, page.raw({HOSTILE.replace('"', ""): HOSTILE.replace('"', "")})),
        page.skip(HOSTILE, HOSTILE),
        page.contents([(HOSTILE, HOSTILE, HOSTILE)]),
        page.progress(1, 2, HOSTILE),
        page.table([HOSTILE], [[HOSTILE], [Cell(HOSTILE, HOSTILE, HOSTILE, HOSTILE)]]),
        page.picture(png(), alt=HOSTILE, caption=HOSTILE),
        page.markdown(
            f"# {HOSTILE}\n\n{HOSTILE} **{HOSTILE}** `{HOSTILE}`\n\n| {HOSTILE} |\n| --- |\n| {HOSTILE} |"
        ),
        page.markdown(f"```\n{HOSTILE}\n```\n"),
        page.document(HOSTILE, "").decode().partition("<script>")[0],
    ],
)
def test_text_is_never_markup(markup):
    assert SAFE in markup.replace("'", "&#x27;")
    assert "alert(1)</script>" not in markup
    assert re.findall("<script", markup) == []


def test_columns_of_numbers_are_to_the_right():
    markup = page.table(["name", "n"], [["a", Cell("1", 1)], ["b", page.DASH]])
    assert '<th scope="col">name</th><th scope="col" class="number">n</th>' in markup
    assert '<td>a</td><td class="number" data-value="1">1</td>' in markup
    assert '<td class="number">–</td>' in markup
    assert "sortable" not in markup
    assert '<table class="sortable">' in page.table(["a"], [], sortable=True)


def test_picture_states_its_size():
    markup = page.picture(png(4, 7), alt="a", caption="c")
    assert 'width="4" height="7"' in markup
    assert "broad" not in markup
    assert '<img class="broad"' in page.picture(png(600, 7), alt="a", caption="c"), "is not shrunk below that"
    (source,) = re.findall('src="data:image/png;base64,([^"]+)"', markup)
    assert base64.b64decode(source) == png(4, 7)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<svg onload='alert(1)'/>" * 9])
def test_no_picture(content):
    with pytest.raises(UserError, match="no PNG"):
        page.picture(content, alt="", caption="")


def test_markdown():
    text = r"""# A *title*

**Table 1.** Words
of two lines, 2 * 3 * 4, `a_b`.

| fit | value \| unit |
| :-- | --: |
| a | 1 |
| **b** |

```bash
| no table |
```
| neither, without a rule |
"""
    assert (
        page.markdown(text)
        == """<h4>A <em>title</em></h4>
<p><strong>Table 1.</strong> Words
of two lines, 2 * 3 * 4, <code>a_b</code>.</p>
<div class="wide"><table>
<thead>
<tr>
<th>fit</th>
<th class="number">value | unit</th>
</tr>
</thead>
<tbody>
<tr>
<td>a</td>
<td class="number">1</td>
</tr>
<tr>
<td><strong>b</strong></td>
<td class="number"></td>
</tr>
</tbody>
</table></div>
<pre><code class="language-bash">| no table |
</code></pre>
<p>| neither, without a rule |</p>
"""
    )


@pytest.mark.parametrize("text", ["[a](http://b)", "![a](http://b)", "<http://b>", "&lt;", "[a]: http://b"])
def test_nothing_in_markdown_leads_elsewhere(text):
    assert page.markdown(text) == f"<p>{page.escape(text)}</p>\n"


def contrast(one, other):
    """The ratio of WCAG 2 between two colours, `#rrggbb` or `#rgb`."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        shares = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_light_and_dark():
    style = (Path(page.__file__).parent / "page.css").read_text()
    for scheme in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for ground in ("ground", "panel"):
            for name in colours.keys() - {"ground", "panel", "line"}:
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def test_policy_names_the_page_s_own_style_and_script():
    text = page.document("t", "<p>b</p>").decode()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("style", "script"):
        (source,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.findall(r"https?://|@import|url\(", text)


def test_a_name_that_is_no_text_does_not_stop_the_page():
    assert b"<title>a?</title>" in page.document("a\udc80", "")
