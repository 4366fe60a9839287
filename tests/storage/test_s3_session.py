"""Times in the answers of S3, compared with botocore's own reading."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.storage.filesystems import filesystem
from pipeline.storage.s3_session import parse_time


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(
        ["%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00", "%a, %d %b %Y %H:%M:%S GMT"]
    ),
)
def test_times_are_those_of_botocore(time: datetime, form: str) -> None:
    text = time.strftime(form)
    assert parse_time(text) == parse_timestamp(text)


@pytest.mark.parametrize("value", [1764230400, 1764230400.5, "1764230400", "2026-11-27"])
def test_times_in_other_forms_are_read_by_botocore(value: object) -> None:
    assert parse_time(value) == parse_timestamp(value)
    with pytest.raises(ValueError, match="Invalid timestamp"):
        parse_time("no time")


def test_listings_have_the_times_of_the_objects(s3_folder: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    storage.write_bytes(f"{s3_folder}/a/1.jpg", b"content")
    (entry,) = storage.list_files(s3_folder)
    assert before.timestamp() <= entry.modified <= datetime.now(UTC).timestamp() + 2
    info = filesystem("s3").info(f"{s3_folder}/a/1.jpg".removeprefix("s3://"))
    assert abs(info["LastModified"].astimezone(UTC).timestamp() - entry.modified) < 2
    factory = filesystem("s3").session.get_component("response_parser_factory")
    assert factory.create_parser("rest-xml")._timestamp_parser is parse_time
