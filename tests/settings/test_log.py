"""One handler, and the level that the environment names."""

import logging

from scalediff.settings import log


def test_one_handler_however_often_the_scripts_are_reloaded(monkeypatch):
    monkeypatch.setenv("SCALEDIFF_LOG", "debug")
    logger = log.set_up()
    try:
        assert log.set_up() is logger
        assert [handler.get_name() for handler in logger.handlers].count("scalediff") == 1
        assert not logger.propagate
        assert logger.level == logging.DEBUG
        monkeypatch.setenv("SCALEDIFF_LOG", "loud")
        assert log.set_up().level == logging.INFO
    finally:
        logger.handlers[:] = [handler for handler in logger.handlers if handler.get_name() != "scalediff"]
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
