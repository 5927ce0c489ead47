"""The report: everything that a batch left behind is on one page, bad news included, and the page is whole and closed."""
import base64
import html
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest

from reid_nb import report
from reid_nb.cells import CELL_COLUMNS
from reid_nb.claims import CLAIM_COLUMNS
from reid_nb.errors import ReidError, UsageError
from reid_nb.files import write_json
from reid_nb.plans import PAPERS
from reid_nb.report import KINDS, STATUSES, VERDICTS, column_places, comparison, duration, number, write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


class Page(HTMLParser):
    """Checks balance while it reads; collects attributes by tag, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def sample_cells():
    """One cell of every kind with every status, in two artefacts of `cnl` and one of another paper."""
    rows = []
    for kind in KINDS:
        for status in STATUSES:
            has_value = status in ("match", "differs", "shown", "not-published")
            rows.append({"paper": "cnl", "artefact": "table_1", "row": f"row {kind} {status}", "column": f"column {kind}",
                         "kind": kind, "status": status, "direction": "higher", "source": "own", "unit": "u",
                         "paper_text": "" if status == "not-published" else "0.8733", "paper_spread": "0.0006",
                         "value": f"0.{len(rows) + 10}1234" if has_value else "", "seeds": "1",
                         "dataset": "market1501 (twin, mini)", "weights": "twin-trunk", "protocol": "market1501",
                         "run": f"run-{len(rows)}"})
    rows.append({"paper": "cnl", "artefact": "figure_4", "row": "HAC", "column": "@ 1", "kind": "hardware",
                 "status": "missing"})
    rows.append({"paper": "uniat", "artefact": "table_3", "row": "<script>alert(1)</script>", "column": "a & b",
                 "kind": "data", "status": "differs", "source": "Luo <2019>", "paper_text": "751", "value": "750",
                 "note": "a < b"})
    return pd.DataFrame(rows).reindex(columns=CELL_COLUMNS).fillna("").assign(preset="mini")


def sample_claims():
    rows = [{"paper": "cnl", "artefact": "table_1", "claim": f"c {status}", "quote": f"The claim that is {status}.", "judged_as": f"Judged as {status}.",
             "section": "IV-C", "status": status, "margin": "-0.0123", "spread": "0.0041", "basis": "3 seeds",
             "needs": "more seeds" if status == "undecided" else ""} for status in VERDICTS]
    return pd.DataFrame(rows).reindex(columns=CLAIM_COLUMNS).fillna("").assign(preset="mini")


def record(outputs, name, **changes):
    """Write an artefact's folder: record, executed notebook, tables."""
    folder = outputs / "cnl" / name
    write_json(folder / "record.json", {"paper": "cnl", "artefact": name, "title": f"The title of {name}",
                                        "notebook": f"nbs/cnl/{name}.ipynb", "commit": "0123456789abcdef", "dirty": True,
                                        "seconds": 75.2, "status": "done", "error": "", "versions": {"torch": "9.9.9"},
                                        **changes})
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")]), folder / "notebook.ipynb")
    (folder / "table.csv").write_text("a\n")
    return folder


@pytest.fixture
def outputs(tmp_path):
    outputs = tmp_path / "mini"
    folder = record(outputs, "table_1")
    (folder / "figure.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>')
    sample_cells().to_csv(outputs / "cells.csv", index=False)
    sample_claims().to_csv(outputs / "claims.csv", index=False)
    write_json(outputs / "reproduction.json", {
        "preset": "mini", "papers": ["cnl", "uniat"], "seconds": 760, "commit": "fedcba9876543210", "started": "today",
        "machine": "an abacus, 2 cores", "command": "reid-nb reproduce cnl uniat",
        "failed": ["cnl figure_4 (log: x.log)", "cnl some-run (log: y.log)"]})
    return outputs


@pytest.fixture
def page(outputs):
    return Page(write_report(outputs).read_text(encoding="utf-8"))


def test_the_page_is_balanced_closed_and_alone(outputs):
    path = write_report(outputs)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == outputs / "report" / "index.html"
    assert [entry.name for entry in path.parent.iterdir()] == ["index.html"]
    loaded = [a.get("src", "data:") for tag in ("img", "script", "iframe", "source") for a in page.all(tag)]
    loaded += [a["href"] for a in page.all("link")]
    assert all(address.startswith("data:") for address in loaded)
    assert "@import" not in text and "url(" not in text


def test_every_cell_stands_in_its_table_and_in_the_ledger(page):
    cells, words = sample_cells(), page.words
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for index, cell in cells.iterrows():
        assert cell["row"] in words and cell["column"] in words
        assert f"cell-{index}" in ids
        assert cell["run"] in words
    linked = {a["href"] for a in page.all("a") if a["href"].startswith("#cell-")}
    assert linked == {f"#cell-{index}" for index in cells.index}


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and not any(" " in name for name in ids)
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)


def test_links_to_files_exist_and_name_notebook_and_commit(outputs):
    page = Page(write_report(outputs).read_text(encoding="utf-8"))
    relative = [a["href"] for a in page.all("a") if a["href"].startswith("../")]
    assert "../cnl/table_1/notebook.html" in relative and "../cnl/table_1/table.csv" in relative
    assert all((outputs / "report" / address).resolve().is_file() for address in relative)
    assert "01234567 (with uncommitted changes)" in page.words and "fedcba987654" in page.words


def test_every_claim_has_its_verdict_margin_and_basis(page):
    for status in VERDICTS:
        assert f"The claim that is {status}." in page.words and f"Judged as {status}." in page.words
    assert "✗ fails" in page.words and "◇ not judged here" in page.words
    assert page.words.count("Margin, ours: −0.0123 ± 0.0041. Basis: 3 seeds.") == len(VERDICTS)


def test_the_first_screen_counts_kinds_claims_and_artefacts(page):
    first = page.words.split("How to read the numbers")[1]
    first = page.words[:page.words.rindex(first)]
    for kind in KINDS:
        total = (sample_cells()["kind"] == kind).sum()
        assert f"{kind.capitalize()} {total} numbers:" in first
    assert "4 claims: ✓ 1 holds, ✗ 1 fails, ? 1 undecided, ◇ 1 not judged here." in first
    assert "3 tables and figures: ✓ 1 complete, ✗ 1 failed or missing, ◇ 1 not asked for." in first
    assert "not comparable with the paper's" in first and "twin" in first
    assert "12 min 40 s" in first and "an abacus" in first


def test_what_fails_is_on_the_first_screen(page):
    first = page.words[:page.words.index("A column headed")]
    bad = first[first.index("Otherwise, or failed"):first.index("Not judged here")]
    assert "The claim that is fails." in bad and "Figure 4 (cnl) failed" in bad
    assert "Step failed: cnl some-run (log: y.log)" in bad and "1 of 1 data number of Table 3 (uniat) differs" in bad
    assert "The claim that is holds." not in bad


def test_needs_are_named(page):
    still_open = page.words[page.words.index("Not judged here"):page.words.index("A column headed")]
    assert "4 numbers of any kind need a real dataset" in still_open and "4 numbers need a GPU" in still_open
    assert "1 claim of cnl undecided needs more seeds" in still_open


def test_a_failed_artefact_shows_its_error_and_what_it_left(outputs):
    record(outputs, "figure_4", status="failed", error="RuntimeError: <Softmax> overflow")
    text = write_report(outputs).read_text(encoding="utf-8")
    assert "RuntimeError: <Softmax> overflow" in Page(text).words
    assert "&lt;Softmax&gt;" in text and "../cnl/figure_4/notebook.html" in text


def test_a_damaged_record_is_a_failure_of_that_artefact_alone(outputs):
    (outputs / "cnl" / "table_1" / "record.json").write_text("{half")
    words = Page(write_report(outputs).read_text(encoding="utf-8")).words
    assert "This artefact failed or is missing" in words and "is not valid JSON" in words
    assert "row architecture match" in words


def test_a_damaged_notebook_is_linked_as_it_is(outputs):
    (outputs / "cnl" / "table_1" / "notebook.ipynb").write_text("{half")
    assert "../cnl/table_1/notebook.ipynb" in write_report(outputs).read_text(encoding="utf-8")


def test_everything_is_escaped(outputs):
    text = write_report(outputs).read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &lt; b" in text and "Luo &lt;2019&gt;" in text and "a &amp; b" in text


def test_tables_say_whose_numbers_they_are(page):
    tables, captions = page.all("table"), page.all("caption")
    assert len(tables) == len(captions) > 0
    assert all("scope" in attributes for attributes in page.all("th"))
    assert "Paper" in page.words and "Ours" in page.words
    assert "Ours, trained: dataset market1501 (twin, mini), weights twin-trunk, protocol market1501, 1 seed." in page.words
    assert {"main", "nav", "header", "footer"} <= {tag for tag, _ in page.tags}


def test_every_table_row_is_as_wide_as_its_heading(outputs):
    text = write_report(outputs).read_text(encoding="utf-8")
    for table in text.split("<table")[1:]:
        rows = [Page(f"<tr{row.split('</tr>')[0]}</tr>") for row in table.split("</table>")[0].split("<tr")[1:]]
        first = sum(int(a.get("colspan", 1)) for tag, a in rows[0].tags if tag == "th")
        body = [row for row in rows if row.all("td")]
        assert body and all(len(row.all("td")) + len(row.all("th")) == first for row in body)


def test_figures_are_embedded_with_a_text(page):
    images = page.all("img")
    assert len(images) == 1 and images[0]["src"].startswith("data:image/svg+xml;base64,")
    assert "The title of table_1" in images[0]["alt"]


def test_a_large_svg_yields_to_its_png(outputs):
    folder = outputs / "cnl" / "table_1"
    (folder / "figure.png").write_bytes(PNG)
    (folder / "figure.svg").write_text("<svg>" + " " * 2_000_000 + "</svg>")
    text = write_report(outputs).read_text(encoding="utf-8")
    assert "data:image/png;base64," in text and "data:image/svg+xml" not in text


def test_notebooks_open_offline_and_are_converted_once(outputs):
    write_report(outputs)
    path = outputs / "cnl" / "table_1" / "notebook.html"
    text, before = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    assert not [address for tag, a in Page(text).tags if tag in ("script", "link", "img") for address in [a.get("src"), a.get("href")]
                if address and address.startswith("http")]
    write_report(outputs)
    assert path.stat().st_mtime_ns == before
    notebook = outputs / "cnl" / "table_1" / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("2 + 2")]), notebook)
    write_report(outputs)
    assert path.stat().st_mtime_ns != before


def test_runs_are_linked_where_they_are(outputs):
    write_json(outputs / "runs" / "cnl" / "run-3" / "run.json", {})
    text = write_report(outputs).read_text(encoding="utf-8")
    assert 'href="../runs/cnl/run-3/run.json"' in text and 'href="../runs/cnl/run-4/run.json"' not in text


def test_an_empty_folder_still_gives_a_page(tmp_path):
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "What was reproduced, and what was not" in page.words and "not recorded" in page.words


def test_a_paper_without_any_file_says_so(tmp_path):
    write_json(tmp_path / "reproduction.json", {"preset": "smoke", "papers": ["cnl"], "failed": []})
    assert "No artefact of this paper left a file" in Page(write_report(tmp_path).read_text(encoding="utf-8")).words


def test_preset_paper_does_not_call_its_numbers_incomparable(outputs):
    write_json(outputs / "reproduction.json", {"preset": "paper", "papers": ["cnl"]})
    cells = sample_cells().assign(dataset="market1501 (real)")
    cells.to_csv(outputs / "cells.csv", index=False)
    words = Page(write_report(outputs).read_text(encoding="utf-8")).words
    assert "not comparable with the paper's." not in words and "cannot be compared with the paper's yet" not in words


@pytest.mark.parametrize("name, column, value", [("cells.csv", "kind", "trainde"), ("cells.csv", "status", "ok"),
                                                 ("claims.csv", "status", "hold")])
def test_an_unknown_word_is_refused_with_file_and_column(outputs, name, column, value):
    frame = pd.read_csv(outputs / name, dtype=str, keep_default_na=False)
    frame.loc[0, column] = value
    frame.to_csv(outputs / name, index=False)
    with pytest.raises(ReidError, match=rf"{name}, column {column}.*{value}"):
        write_report(outputs)
    assert not (outputs / "report").exists()


def test_a_list_without_its_columns_is_refused(outputs):
    (outputs / "cells.csv").write_text("paper,artefact\ncnl,table_1\n")
    with pytest.raises(ReidError, match="lacks the columns"):
        write_report(outputs)


def test_a_folder_that_is_not_there_says_what_makes_it(tmp_path):
    with pytest.raises(ReidError, match="nothing to report"):
        write_report(tmp_path / "absent")


def test_a_failing_write_leaves_the_old_page(outputs, monkeypatch):
    path = write_report(outputs)
    before = path.read_bytes()
    monkeypatch.setattr(report, "_SCRIPT", "\ud800")  # cannot be written as UTF-8
    with pytest.raises(UnicodeEncodeError):
        write_report(outputs)
    assert path.read_bytes() == before and [entry.name for entry in path.parent.iterdir()] == ["index.html"]


@pytest.mark.parametrize("text, spread, places, expected", [
    ("0.53218", "", 4, "0.5322"), ("0.53218", "0.0112", 4, "0.5322 ± 0.0112"), ("0.5", "0.00004", 2, "0.50 ± 0.00004"),
    ("23508032", "", 0, "23\u202f508\u202f032"), ("-0.0123", "0.0041", None, "−0.0123 ± 0.0041"), ("0.1", "", None, "0.1"),
    ("0.0312345", "0.0", None, "0.03123"), ("nan", "", 2, "nan"), ("n/a", "", 2, "n/a"), ("", "", 2, ""), ("0", "", None, "0"),
    ("7", "2", 0, "7 ± 2"),
])
def test_number(text, spread, places, expected):
    assert number(text, spread, places) == expected


@pytest.mark.parametrize("values, printed, spreads, expected", [
    (["0.53218", "0.51"], ["0.8733", "0.88"], [], 4), (["0.0312"], ["25.17"], [], 4), (["812.4"], ["25.17"], [], 2),
    (["751", "3368"], ["", "3368"], [], 0), (["0.53218"], ["", ""], [], 4), ([], ["0.87 ± 0.01"], [], 2),
    (["100.2", "104"], ["105"], ["0.8"], 1), (["23.508032"], ["23,508,032"], [], 1),
    (["0.3174", "0", "0", "0", "0.0399"], [""], [], 4), (["0", "0", "0.0087"], ["2.5"], [], 5), (["35.2", "17.1", "0.0087"], ["25.17"], [], 3),
])
def test_column_places(values, printed, spreads, expected):
    assert column_places(values, printed, spreads) == expected


def test_duration():
    assert [duration(seconds) for seconds in (0.4, 59.6, 60, 3599, 3600, 6721)] == \
        ["0 s", "1 min 0 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 h 52 min"]


def test_comparison_keeps_cells_that_share_row_and_column():
    cells = sample_cells().iloc[[0, 0, 1]].reset_index(drop=True)
    cells.loc[1, "value"] = "0.9"
    shown = [cell["ours"] for row in comparison(cells)["rows"] for cell in row["cells"] if cell]
    assert len(shown) == 3 and len(set(shown)) == 3


def test_a_column_never_mixes_kinds():
    cells = sample_cells().assign(column="the same")
    columns = comparison(cells[cells["artefact"] == "table_1"])["columns"]
    assert [column["kind"] for column in columns] == list(KINDS)


def test_a_value_that_is_printed_by_the_paper_stays_to_the_digit(outputs):
    """A spread that lost its last zero in a CSV of numbers (0.0010 -> 0.001) gets it back."""
    cells = sample_cells()
    cells.loc[0, "paper_spread"] = "0.001"
    cells.to_csv(outputs / "cells.csv", index=False)
    assert "0.8733 ± 0.0010" in write_report(outputs).read_text(encoding="utf-8")
    assert "0.8733 ± 0.0006" in html.unescape(write_report(outputs).read_text(encoding="utf-8"))


def test_a_derived_reference_is_never_shown_as_printed(outputs):
    cells = sample_cells()
    derived = cells[cells["status"] == "not-published"].index
    cells.loc[derived, "paper_value"] = "1.0762"
    cells.loc[len(cells)] = {**cells.loc[0], "column": "added", "row": "alone", "paper_text": "", "source": "formula",
                             "paper_value": "34400", "value": "34400", "status": "not-published", "note": "closed form"}
    cells.to_csv(outputs / "cells.csv", index=False)
    text = write_report(outputs).read_text(encoding="utf-8")
    assert "<i>1.0762</i>†" in text and "† not printed in the paper" in text and "<i>34\u202f400</i>†" in text
    columns = {column["name"]: column["heading"] for column in comparison(cells[cells["artefact"] == "table_1"])["columns"]}
    assert columns["added"] == "Formula" and columns["column trained"] == "Paper"
    Page(text)


def one(**values):
    """A list of one or more cells, every column filled."""
    return pd.DataFrame([values] if not isinstance(values.get("row"), list) else values).reindex(columns=CELL_COLUMNS).fillna("").assign(paper="cnl")


def written(tmp_path, cells, claims=None):
    """The page of a folder with these cells."""
    cells.to_csv(tmp_path / "cells.csv", index=False)
    if claims is not None:
        claims.to_csv(tmp_path / "claims.csv", index=False)
    return Page(write_report(tmp_path).read_text(encoding="utf-8"))


def test_agreement_with_a_formula_is_no_match_with_the_paper(tmp_path):
    cells = one(artefact="table_1", row=["a", "b", "c"], column="n", kind="architecture", status="match", value="17",
                paper_text=["17", "", ""], paper_value="17", source=["own", "formula", "formula"])
    words = written(tmp_path, cells).words
    assert "3 numbers: ✓ 1 matches, ≡ 2 equal our own formula." in words
    assert "1 of 1 architecture number of Table 1 (cnl) matches the paper" in words


def test_a_batch_that_did_not_end_is_not_called_finished(tmp_path):
    cells = one(artefact="table_1", row=["a"], column="n", kind="architecture", status="match", value="17", paper_text="17", paper_value="17")
    assert "The batch did not end" in written(tmp_path, cells).words
    write_json(tmp_path / "reproduction.json", {"preset": "mini", "papers": ["cnl"], "failed": []})
    assert "The batch did not end" not in written(tmp_path, cells).words


def test_rows_of_other_weights_are_named(tmp_path):
    cells = one(artefact="table_1", row=["a", "b", "c"], column="mAP", kind="trained", value="1", status="shown", dataset="d", weights=["random", "trunk", "trunk"],
                protocol="p", seeds="1")
    assert "Ours, trained: a: dataset d, weights random, protocol p, 1 seed; b, c: dataset d, weights trunk, protocol p, 1 seed." in written(tmp_path, cells).words


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_explains_its_abbreviations(tmp_path, paper):
    page = written(tmp_path, one(artefact="table_1", row=["a"], column="n", kind="architecture", status="match").assign(paper=paper))
    assert all(word in page.words and meaning in page.words for word, meaning in report.words_of(paper).items())


def test_parts_of_one_sentence_say_what_each_of_them_tests(tmp_path):
    claims = pd.DataFrame({"paper": "cnl", "artefact": "table_1", "claim": ["by parameters", "by time"], "quote": "smaller and faster", "status": ["holds", "fails"],
                           "margin": ["0.5", "-0.2"], "spread": "0.1"}).reindex(columns=CLAIM_COLUMNS).fillna("")
    words = written(tmp_path, one(artefact="table_1", row=["a"], column="n", kind="architecture", status="match"), claims).words
    assert "smaller and faster by parameters, margin 0.5" in words and "smaller and faster by time, margin −0.2" in words


def test_no_number_is_counted_in_two_lines_of_what_is_open(tmp_path):
    cells = one(artefact="table_1", row=list("abcd"), column="mAP", kind="trained", value=["0.1", "", "", "0.2"],
                status=["shown", "left-out", "needs-gpu", "not-published"])
    cells.to_csv(tmp_path / "cells.csv", index=False)
    counts = [item["text"].split()[0] for item in report.still_open(report.read_outputs(tmp_path)) if "artefact" not in item["text"] and "batch" not in item["text"]]
    assert counts[:4] == ["1", "1", "1", "1"]


def test_rows_that_share_no_column_are_tables_of_their_own():
    cells = one(row=["a", "b", "data", "a", "c"], column=["mAP", "mAP", "images", "best", "best"])
    assert [sorted(set(part["row"])) for part in report.subjects(cells)] == [["a", "b", "c"], ["data"]]
    assert sum(map(len, report.subjects(cells))) == len(cells)


def test_a_number_that_two_runs_measured_says_so_in_both_places(tmp_path):
    cells = one(artefact=["table_1", "ablation"], row=["x", "x"], column="slow-down", kind="hardware", value=["1.006", "1.058"], spread="0.01",
                paper_value=["1.046", ""], status=["shown", "not-published"], run=["one", "two"])
    words = written(tmp_path, cells).words
    assert "another run, for Ablation: 1.058 ± 0.010" in words and "another run, for Table 1: 1.006 ± 0.010" in words
    assert "another run" not in written(tmp_path, cells.assign(run="one")).words


def test_a_borrowed_number_names_the_row_that_was_measured(tmp_path):
    cells = one(artefact="figure_4", row=["HAC @ 7", "HAC @ 8", "HAC @ 9"], column="speed", kind="hardware", value=["2", "2", ""],
                status=["not-published", "not-published", "left-out"], protocol=["eager, batch 1, measured as HAC @ 8", "eager, batch 1", ""])
    words = written(tmp_path, cells).words
    assert "as HAC @ 8" in words and "Ours, hardware: protocol eager, batch 1." in words
    caption = report._caption(cells)
    assert "2 of the 3 rows" in caption and "1 row of these borrowed" in caption


def test_claims_that_are_not_judged_are_folded_and_still_there(tmp_path):
    page = written(tmp_path, one(artefact="table_1", row="a", column="mAP", kind="trained", status="left-out"), sample_claims())
    start = page.words.index("1 claim not judged at this preset")
    assert page.words.index("The claim that is undecided.", page.words.index("Claims 4 claims")) < start
    assert "The claim that is not here." in page.words[start:]
