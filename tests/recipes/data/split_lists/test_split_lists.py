"""The published split lists: real ones, small ones worked by hand, hostile ones, and the derived validation splits."""

from collections import Counter
from pathlib import Path

import pytest

from multifuse.recipes.data.split_lists.av_digits import read_av_digits
from multifuse.recipes.data.split_lists.ave import read_ave
from multifuse.recipes.data.split_lists.clips import ClipList, SplitListError, held_out
from multifuse.recipes.data.split_lists.cremad import read_cremad
from multifuse.recipes.data.split_lists.kinetics_sounds import read_kinetics_sounds
from multifuse.recipes.data.split_lists.ucf101 import read_ucf101
from tests.paths import REAL_DATA

real = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real split lists are not available")


def counts(listed: ClipList) -> dict[str, int]:
    return dict(Counter(clip.split for clip in listed.clips))


def groups(listed: ClipList, split: str) -> set[str]:
    return {clip.group for clip in listed.clips if clip.split == split}


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        suffix = ".csv" if name in ("train", "test", "labels") else ".txt"
        (folder / f"{name}{suffix}").write_text(content)
    return folder


@real
def test_cremad_is_read_and_validated_on_unseen_speakers() -> None:
    listed = read_cremad(REAL_DATA / "splits/cremad")
    assert counts(listed) == {"train": 6027, "valid": 671, "test": 744}
    assert not groups(listed, "train") & groups(listed, "valid")
    assert (listed.clips[0].id, listed.classes[listed.clips[0].label]) == ("1088_IOM_NEU_XX", "NEU")


@real
def test_cremad_split_by_speakers_has_no_speaker_in_two_splits() -> None:
    listed = read_cremad(REAL_DATA / "splits/cremad", "speakers")
    assert sum(counts(listed).values()) == 6698 + 744
    assert all(600 < counts(listed)[split] < 900 for split in ("valid", "test"))
    speakers = [groups(listed, split) for split in ("train", "valid", "test")]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 91


@real
def test_kinetics_sounds_is_read_with_all_or_some_of_its_classes() -> None:
    listed = read_kinetics_sounds(REAL_DATA / "splits/kinetics_sounds")
    assert len(listed.classes) == 31
    assert counts(listed) == {"train": 13304, "valid": 1495, "test": 2597}
    assert not groups(listed, "train") & groups(listed, "valid")
    assert {clip.label for clip in listed.clips if clip.split == "valid"} == set(range(31))
    some = read_kinetics_sounds(REAL_DATA / "splits/kinetics_sounds", ["7", "2"])
    assert some.classes == ("7", "2")
    assert len(some.clips) == 568 + 694
    assert some.clips[0].other_stems


@real
def test_ave_is_read_with_its_seconds() -> None:
    listed = read_ave(REAL_DATA / "splits/ave")
    assert counts(listed) == {"train": 3339, "valid": 402, "test": 402}
    assert (len(listed.classes), listed.segment_classes[28]) == (28, "Background")
    (event,) = (clip for clip in listed.clips if clip.id == "fCZi6I6kPpU")
    bell = listed.classes.index("Church bell")
    assert event.segments == (28,) * 6 + (bell,) * 4


@real
def test_ucf101_is_read_and_validated_on_unseen_groups() -> None:
    listed = read_ucf101(REAL_DATA / "splits/ucf101")
    assert len(listed.classes) == 101
    assert counts(listed)["test"] == 3783
    assert counts(listed)["train"] + counts(listed)["valid"] == 9537
    assert not groups(listed, "train") & groups(listed, "valid")
    assert {clip.label for clip in listed.clips if clip.split == "valid"} == set(range(101))


@real
def test_the_digits_are_read() -> None:
    listed = read_av_digits(REAL_DATA / "av_digits")
    assert counts(listed) == {"train": 1800, "valid": 200, "test": 1000}
    assert not groups(listed, "train") & groups(listed, "test")


def test_the_held_out_groups_depend_only_on_their_names(tmp_path: Path) -> None:
    rows = [f"{actor}_T{take}_{emotion}_XX,{emotion}\n" for actor in range(30) for take, emotion in ((1, "SAD"),)]
    listed = read_cremad(write(tmp_path, train="".join(rows), test="1_A_ANG_XX,ANG\n"))
    reversed_list = read_cremad(write(tmp_path, train="".join(rows[::-1]), test="1_A_ANG_XX,ANG\n"))
    assert groups(listed, "valid") == groups(reversed_list, "valid")
    assert counts(listed) == {"train": 27, "valid": 3, "test": 1}
    # At least one group stays in training, whatever the fraction.
    assert counts(ClipList(held_out(listed.clips[:1], lambda clip: clip.group, 0.9), ())) == {"train": 1}


def test_a_kinetics_clip_has_the_alternative_names_of_its_files(tmp_path: Path) -> None:
    folder = write(tmp_path, my_train="-a_b_2,10,0\nccc_000004_000014,10,1\n", my_test="dd_1,10,1\n")
    first, second, _ = read_kinetics_sounds(folder).clips
    assert first.other_stems == ("-a_b_000002_000012", "-a_b_2_12")
    assert second.other_stems == ("ccc_4_14", "ccc_4")


@pytest.mark.parametrize(
    "clip_id",
    ["../1_T_NEU_XX", "/etc/1_T_NEU_XX", "a/1_T_NEU_XX", "..1_T_NEU_XX", "1_T_NEU_X\x00X", "C:\\1_T_NEU_X", "___"],
)
def test_an_id_that_is_a_path_is_refused_with_its_line(tmp_path: Path, clip_id: str) -> None:
    folder = write(tmp_path, train=f"1_T_NEU_XX,NEU\n{clip_id},NEU\n", test="2_T_NEU_XX,NEU\n")
    if clip_id == "___":
        assert len(read_cremad(folder).clips) == 3
        return
    with pytest.raises(SplitListError, match=r"train\.csv, line 2: an id must be a plain file name"):
        read_cremad(folder)


def test_a_clip_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    folder = write(tmp_path, train="1_T_NEU_XX,NEU\n3_T_SAD_XX,SAD\n1_T_NEU_XX,NEU\n", test="2_T_NEU_XX,NEU\n")
    assert sorted(clip.id for clip in read_cremad(folder).clips) == ["1_T_NEU_XX", "2_T_NEU_XX", "3_T_SAD_XX"]


def test_malformed_lists_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(SplitListError, match=r"train\.csv: cannot be read: No such file"):
        read_cremad(tmp_path)
    with pytest.raises(SplitListError, match=r"line 1: expected 'actor_sentence_emotion_level,class', got 'x'"):
        read_cremad(write(tmp_path, train="x\n", test="1_T_NEU_XX,NEU\n"))
    with pytest.raises(SplitListError, match=r"the class must be one of .*, got 'JOY'"):
        read_cremad(write(tmp_path, train="1_T_NEU_XX,JOY\n", test="1_T_NEU_XX,NEU\n"))
    with pytest.raises(SplitListError, match="'1_T_NEU_XX' is listed in train and in test"):
        read_cremad(write(tmp_path, train="1_T_NEU_XX,NEU\n", test="1_T_NEU_XX,NEU\n"))
    with pytest.raises(SplitListError, match="'1_T_NEU_XX' is listed twice in train, with the labels 0 and 2"):
        read_cremad(write(tmp_path, train="1_T_NEU_XX,NEU\n1_T_NEU_XX,SAD\n", test="2_T_NEU_XX,NEU\n"))
    with pytest.raises(SplitListError, match=r"must be distinct and among \['0'\], got \['9'\]"):
        read_kinetics_sounds(write(tmp_path, my_train="a_1,10,0\n", my_test="b_1,10,0\n"), ["9"])
    with pytest.raises(SplitListError, match=r"onset and offset must be seconds in \[0, 10\], got '11'"):
        read_ave(
            write(tmp_path, trainSet="Bark&a&good&0&11\n", valSet="Bark&b&good&0&1\n", testSet="Bark&c&good&0&1\n")
        )
    lists = {"classInd": "1 Archery\n", "testlist01": "Archery/v_Archery_g01_c01.avi\n"}
    with pytest.raises(SplitListError, match="and the class's number"):
        read_ucf101(write(tmp_path, trainlist01="Archery/v_Archery_g02_c01.avi 2\n", **lists))
    with pytest.raises(SplitListError, match=r"line 2: split must be one of .*, got 'dev'"):
        read_av_digits(write(tmp_path, labels="id,label,speaker,split\na,1,x,dev\n"))


@pytest.mark.parametrize("seconds", ["\u00b2", "9" * 5000, "-1", "1e1", "\u0663"])
def test_numbers_in_other_notations_or_of_excessive_length_are_refused(tmp_path: Path, seconds: str) -> None:
    with pytest.raises(SplitListError, match="line 1: expected 'id,seconds,class'"):
        read_kinetics_sounds(write(tmp_path, my_train=f"a_1,{seconds},0\n", my_test="b_1,10,0\n"))
    with pytest.raises(SplitListError, match="line 1: onset and offset must be seconds"):
        read_ave(
            write(
                tmp_path,
                trainSet=f"Bark&a&good&0&{seconds}\n",
                valSet="Bark&b&good&0&1\n",
                testSet="Bark&c&good&0&1\n",
            )
        )
