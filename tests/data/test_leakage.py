import numpy as np
import pytest

from data.made_windows import windows
from hcqsfl.data.folds import Fold, leave_one_subject_out
from hcqsfl.data.leakage import LeakError, kind_of_name, refuse, scan


def honest(**changes):
    rng = np.random.default_rng(0)
    return windows(rng.integers(0, 2, 120), np.repeat(["S2", "S3", "S4"], 40), **changes)


def fold_of(w, train, test, by="subject"):
    return Fold("planted", np.asarray(train), np.array([], dtype=int), np.asarray(test), by)


def kinds(leaks) -> set[str]:
    return {leak.kind for leak in leaks}


def test_an_honest_split_is_clean() -> None:
    w = honest()
    assert [scan(w, fold) for fold in leave_one_subject_out(w)] == [[], [], []]


def test_a_planted_subject_leak_is_refused() -> None:
    w = honest()
    leaks = scan(w, fold_of(w, range(60), range(60, 120)))
    assert kinds(leaks) == {"subject_overlap"}
    with pytest.raises(LeakError, match=r"1 subjects in common between training and test of fold planted: S3"):
        refuse(leaks)


def test_a_random_split_of_overlapping_windows_is_refused() -> None:
    w = honest(start=np.arange(120) * 2)  # windows of 4 samples, half overlapping
    leaks = scan(w, fold_of(w, range(0, 120, 2), range(1, 120, 2), by="time"))
    assert "window_overlap" in kinds(leaks)


def test_neighbours_that_share_no_sample_do_not_overlap() -> None:
    w = honest(start=np.arange(120) * 4)
    assert scan(w, fold_of(w, range(60), range(60, 120), by="time")) == []


def test_the_same_vector_on_both_sides_is_refused() -> None:
    w = honest()
    w.x[100] = w.x[3]
    leaks = scan(w, fold_of(w, range(40), range(40, 120)))
    assert kinds(leaks) == {"duplicate_vectors"}
    assert "1 windows (1.2%)" in leaks[0].what


def test_minus_zero_equals_zero() -> None:
    w = honest()
    w.x[3], w.x[100] = 0.0, -0.0
    assert kinds(scan(w, fold_of(w, range(40), range(40, 120)))) == {"duplicate_vectors"}


def test_a_column_that_is_the_label_in_disguise_is_refused() -> None:
    w = honest()
    w.x[:, 1] = w.y[:, None] + 0.001 * w.x[:, 1]
    leaks = scan(w, leave_one_subject_out(w)[0])
    assert kinds(leaks) == {"single_column"}
    assert leaks[0].flag == "single_column:EDA"


def test_a_category_that_is_the_label_in_disguise_is_refused_whatever_its_codes() -> None:
    w = honest(units=("mV", "category"))
    codes = np.array([[7, 3], [1, 5]])  # class 0 has codes 7 and 3, class 1 has 1 and 5
    w.x[:, 1] = codes[w.y, np.random.default_rng(0).integers(0, 2, 120)][:, None]
    assert kinds(scan(w, leave_one_subject_out(w)[0])) == {"single_column"}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("src_ip", "identity_column"),
        ("srcIp", "identity_column"),
        ("dst_port", "identity_column"),
        ("device_id", "identity_column"),
        ("id.orig_h", "identity_column"),
        ("name", "identity_column"),
        ("ts", "time_column"),
        ("timestamp", "time_column"),
        ("Unnamed: 0", "time_column"),
        ("label", "label_column"),
        ("activityID", "label_column"),
        ("type", "label_column"),
        ("src_ip_bytes", ""),
        ("weird_name", ""),
        ("dns_qtype", ""),
        ("ECG", ""),
        ("FC1_Read_Input_Register", ""),
        ("temperature", ""),
        ("hand_acc16_x", ""),
    ],
)
def test_a_name_gives_a_column_away_by_its_last_word(column: str, kind: str) -> None:
    assert kind_of_name(column) == kind


def test_an_address_among_the_inputs_is_refused() -> None:
    w = honest(channels=("src_ip", "EDA"))
    with pytest.raises(LeakError, match="src_ip"):
        refuse(scan(w, leave_one_subject_out(w)[0]))


def test_a_named_flag_lets_it_pass_and_says_so() -> None:
    w = honest(channels=("src_ip", "EDA"))
    (leak,) = refuse(scan(w, leave_one_subject_out(w)[0]), ["identity_column:src_ip"])
    assert leak.allowed_by == "identity_column:src_ip"


def test_a_flag_for_another_column_does_not() -> None:
    w = honest(channels=("src_ip", "EDA"))
    with pytest.raises(LeakError):
        refuse(scan(w, leave_one_subject_out(w)[0]), ["identity_column:dst_ip"])


def test_a_flag_that_names_no_leak_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'subject_overlap'"):
        refuse([], ["subject_overlaps"])
