# SPDX-License-Identifier: GPL-2.0-only
"""Facts about kernel and host in the report."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.host.report import environment, html_report, markdown_summary, summary_json
from tests.unit.host.report import run_samples


def test_rows_have_the_main_facts() -> None:
    rows = dict(environment.fact_rows(run_samples.run()))
    assert rows["base"] == "debian 7.3.4-1, patched by Debian"
    assert rows["series"] == "v7.3, 1 patch"
    assert rows["series sha256"] == "ab" * 32
    assert rows["configuration"] == "tinyconfig, base.config"
    assert rows["compiler"] == "gcc 12.2.0"
    assert rows["accelerator"] == "tcg: no guest reached user space under KVM within 20 s"
    assert rows["host"] == "An x86 CPU, 2 cores, 24 GiB, Debian 12"


def test_unpatched_kernel_has_no_series() -> None:
    assert (
        dict(environment.fact_rows(run_samples.run(kernel={"series": None})))["series"]
        == "none applied"
    )


def test_unknown_facts_have_no_row() -> None:
    rows = environment.fact_rows(
        run_samples.run(kernel={}, host={}, accel_reason="", deadline_scale=1.0)
    )
    labels = [label for label, _ in rows]
    assert dict(rows)["accelerator"] == "tcg"
    assert not {"base", "series", "configuration", "host", "deadlines multiplied by"} & set(labels)
    assert all(value for _, value in rows)


def test_metadata_is_flattened() -> None:
    rows = dict(environment.flat_metadata(run_samples.run()))
    assert rows["series patches"] == "0001-a.patch " + "ef" * 32
    assert rows["fragments base.config"] == "cd" * 32


def test_repeat_command_has_the_options_of_the_run() -> None:
    assert environment.repeat_command(run_samples.run(argv=())) == "tox -e vm"
    assert (
        environment.repeat_command(run_samples.run(argv=("-k", "a b"))) == "tox -e vm -- -k 'a b'"
    )


def test_titles_of_runs_are_distinct() -> None:
    base, debug = run_samples.run(), run_samples.run(profile="debug")
    again = run_samples.run(started="later")
    assert [environment.run_title(run, [base, debug]) for run in (base, debug)] == ["base", "debug"]
    assert environment.run_title(base, [base, again]) != environment.run_title(again, [base, again])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_field = st.sampled_from(["source", "series", "fragments", "tools", "other"])
_inner = st.sampled_from(["kind", "version", "patched_by", "name", "sha256", "patches"])


@settings(max_examples=60)
@given(st.dictionaries(_field, _json | st.dictionaries(_inner, _json)))
def test_metadata_of_any_shape_can_be_rendered(kernel: dict[str, object]) -> None:
    run = summary_json.sanitize_run(run_samples.run(run_samples.result(), kernel=kernel))
    html_report.render([run], ())
    markdown_summary.render([run], ())
    assert summary_json.parse(summary_json.render([run])) == [run]
