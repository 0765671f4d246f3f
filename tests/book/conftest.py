"""An option that looks at some of the pages only."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--page",
        action="append",
        default=[],
        help="this page only, such as ch05_measuring_compressibility; repeat it",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out the tests of other pages; tests of the whole book stay."""
    wanted = config.getoption("--page")
    if not wanted:
        return

    def fits(item: pytest.Item) -> bool:
        page = getattr(item, "callspec", None) and item.callspec.params.get("page")
        return not hasattr(page, "stem") or page.stem in wanted

    out = [item for item in items if not fits(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if fits(item)]
