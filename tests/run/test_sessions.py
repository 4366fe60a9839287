"""Sessions of a run: written by annotate, read by pages and sweeps."""

from pathlib import Path

from support.runs import judged_run

from pipeline.run.sessions import Session, read_sessions, write_session


def test_sessions_are_read_in_their_order_and_other_files_are_harmless(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "run", {"a.jpg": ([], [])})
    assert read_sessions(run) == []
    later, earlier = Session(2000.5, 10, 7, 1.5, 300.0), Session(1000.0, 5, 3, None, 200.0)
    for session in (later, earlier):
        write_session(run, session)
    folder = Path(run.uri) / "sessions"
    (folder / ".half-written.json").write_text("{")
    (folder / "000000000000001.json").write_text('{"other": 1}')
    (folder / "notes.txt").write_text("x")
    assert read_sessions(run) == [earlier, later]
