"""The benchmark of a class: what a student sees in the server's messages."""

from __future__ import annotations

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks.students import HISTOGRAM, Student


def sent(student: Student, message: ForwardMsg) -> None:
    student._take(message.SerializeToString())


def button(key: str, disabled: bool) -> ForwardMsg:
    message = ForwardMsg()
    message.delta.fragment_id = "form"
    message.delta.new_element.button.id = f"$$ID-5f-lesson_alike-or-different_{key}"
    message.delta.new_element.button.disabled = disabled
    return message


def timer(fragment: str) -> ForwardMsg:
    message = ForwardMsg()
    message.auto_rerun.fragment_id, message.auto_rerun.interval = fragment, 1.5
    return message


def ended(status: ForwardMsg.ScriptFinishedStatus.ValueType) -> ForwardMsg:
    message = ForwardMsg()
    message.script_finished = status
    return message


def begun() -> ForwardMsg:
    message = ForwardMsg()
    message.new_session.name = "learn"
    return message


def test_a_student_knows_its_widgets_and_the_fragments_of_the_present_page() -> None:
    student = Student(None, "lesson=alike-or-different")
    for message in (button("commit", True), begun(), timer("curves"), ended(ForwardMsg.FINISHED_SUCCESSFULLY)):
        sent(student, message)
    assert student.widgets["commit"] == ("$$ID-5f-lesson_alike-or-different_commit", "form", False)
    sent(student, button("commit", False))
    assert student.widgets["commit"][2]
    for message in (begun(), ended(ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)):
        sent(student, message)
    assert list(student._timers) == ["curves"], "a fragment alone ends no other"
    for message in (begun(), timer("class"), ended(ForwardMsg.FINISHED_SUCCESSFULLY)):
        sent(student, message)
    assert list(student._timers) == ["class"]
    assert student.finished == 3


def test_a_histogram_counts_also_where_only_its_hash_is_sent() -> None:
    student = Student(None, "")
    figure = ForwardMsg(hash="abc")
    figure.metadata.cacheable = True
    figure.delta.new_element.markdown.body = HISTOGRAM.decode()
    sent(student, figure)
    assert student.has_histogram
    student.has_histogram = False
    sent(student, ForwardMsg(ref_hash="other"))
    assert not student.has_histogram
    sent(student, ForwardMsg(ref_hash="abc"))
    assert student.has_histogram
