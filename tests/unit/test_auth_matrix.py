"""The docs show the table that the end-to-end tests hold the mesh to."""

from __future__ import annotations

import re

import pytest

from infra.local.paths import CHECKOUT
from tests.e2e import auth_matrix
from tests.e2e.auth_matrix import ADDRESSES, COLUMNS, SPELLINGS, expected

DOCS = CHECKOUT / "docs" / "identity.md"


@pytest.mark.parametrize(
    ("name", "table"),
    [("requests", auth_matrix.table()), ("spellings", auth_matrix.spellings_table())],
)
def test_the_docs_have_the_tables_of_the_tests(name: str, table: str) -> None:
    shown = re.search(
        rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", DOCS.read_text(), re.DOTALL
    )
    assert shown
    assert shown[1] == table


def test_each_kind_of_token_is_in_one_column() -> None:
    in_columns = [name for _, names in COLUMNS for name in names]
    assert sorted(in_columns) == sorted(token.name for token in auth_matrix.tokens(0))


def test_only_the_page_and_health_are_for_everybody() -> None:
    nobody = auth_matrix.tokens(0)[0]
    open_to_all = {
        address.path
        for address in ADDRESSES
        for spelling in SPELLINGS
        if expected(nobody, address, spelling) == auth_matrix.REACHED
    }
    assert open_to_all == {"/", "/healthz"}
