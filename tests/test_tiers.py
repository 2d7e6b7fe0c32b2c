"""`pytest` alone runs the quick part of the suite: some test of every file, so of every module."""


def test_every_file_has_a_quick_test(pytestconfig):
    assert not pytestconfig.never_quick
