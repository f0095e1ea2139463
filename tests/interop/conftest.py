"""Real clients against a running system."""

import pytest

pytest.register_assert_rewrite("tests.interop.clients", "tests.interop.verify")
