"""A chat endpoint as a judge."""

from __future__ import annotations

import json
import signal
import threading
import time

import pytest
import torch

from chat_stub import Reply, chat_stub, prefers_longer, said
from nashtune.errors import InputError
from nashtune.oracles import judge_client
from nashtune.oracles.judge import JudgeOracle
from nashtune.oracles.judge_http import endpoint, retry_after
from nashtune.oracles.judge_pool import in_parallel
from nashtune.oracles.judge_verdict import VERDICT, verdict_reader
from ranks import free_port

PROMPTS = ["one", "two", "three", "four"]
FIRST = ["aaa", "b", "cc", "same"]
SECOND = ["a", "bbb", "dd", "same"]


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(judge_client, "FIRST_WAIT", 0.01)
    with chat_stub() as server:
        yield server


@pytest.fixture
def make(stub, tmp_path):
    def oracle(**options) -> JudgeOracle:
        return JudgeOracle(**{"url": stub.url, "model": "stub", "cache": str(tmp_path / "answers"), **options})

    return oracle


def fails_first(times: int, reply: Reply):
    """A stub's behaviour: that reply so many times, then a judge that works."""
    left = [times]

    def answer(body):
        left[0] -= 1
        return reply if left[0] >= 0 else prefers_longer(body)

    return answer


def test_both_orders_are_asked_and_averaged(make, stub):
    oracle = make()
    p = oracle.compare(PROMPTS, FIRST, SECOND)
    assert p.dtype == torch.float64 and p.tolist() == [1.0, 0.0, 0.5, 0.5]
    asked = sorted(body["messages"][0]["content"] for body in stub.asked)
    assert len(asked) == 6  # two orders of three; equal answers are not asked about
    assert any("[Answer A]\naaa\n\n[Answer B]\na\n" in text for text in asked)
    assert any("[Answer A]\na\n\n[Answer B]\naaa\n" in text for text in asked)
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in stub.asked} == {("stub", 0.0, 64)}
    assert oracle.counts() == {"comparisons": 4, "requests": 6}


def test_swapping_gives_exactly_one_minus_and_costs_nothing(make, stub):
    oracle = make()
    p = oracle.compare(PROMPTS, FIRST, SECOND)
    assert torch.equal(1 - p, oracle.compare(PROMPTS, SECOND, FIRST))
    assert len(stub.asked) == 6


def test_a_judge_that_always_says_the_first_is_no_judge(make, stub):
    stub.reply = lambda body: said("[[A]]")
    oracle = make()
    assert oracle.compare(PROMPTS, FIRST, SECOND).tolist() == [0.5] * 4
    assert oracle.counts()["position_decides"] == 3


def test_a_tie_in_one_order_is_a_quarter(make, stub):
    stub.reply = lambda body: said("[[A]]" if "[Answer A]\naaa" in body["messages"][0]["content"] else "[[tie]]")
    assert make().compare(["?"], ["aaa"], ["b"]).item() == 0.75


def test_answers_are_kept_by_content_and_not_by_address(make, stub, tmp_path):
    make().compare(PROMPTS, FIRST, SECOND)
    files = list((tmp_path / "answers").rglob("*.json"))
    assert len(files) == 6 and len(stub.asked) == 6
    assert stub.url not in "".join(file.read_text() for file in files)
    again = make(url="http://127.0.0.1:1/v1", timeout=1.0, retries=0)  # nobody is there, and nobody is asked
    assert again.compare(PROMPTS, FIRST, SECOND).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert again.counts() == {"comparisons": 4, "cache_hits": 6}


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.5}, {"max_tokens": 9}, {"extra": {"seed": 1}}, {"prompt_template": None}],
)
def test_another_question_is_asked_anew(make, stub, change):
    oracle = make()
    oracle.compare(["?"], ["aaa"], ["b"])
    if "prompt_template" in change:
        change = {"prompt_template": oracle.prompt_template.replace("Here are", "See")}
    make(**change).compare(["?"], ["aaa"], ["b"])
    assert len(stub.asked) == 4


def test_extra_fields_are_sent_and_kept_as_json_knows_them(make, stub):
    options = {"extra": {"logit_bias": {65: 100}}, "temperature": None}
    make(**options).compare(["?"], ["aaa"], ["b"])
    assert stub.asked[0]["logit_bias"] == {"65": 100} and "temperature" not in stub.asked[0]
    make(**options).compare(["?"], ["aaa"], ["b"])
    assert len(stub.asked) == 2


def test_a_torn_file_is_asked_again(make, stub, tmp_path):
    make().compare(["?"], ["aaa"], ["b"])
    for file in (tmp_path / "answers").rglob("*.json"):
        file.write_text(file.read_text()[:40])
    assert make().compare(["?"], ["aaa"], ["b"]).item() == 1.0
    assert len(stub.asked) == 4
    make().compare(["?"], ["aaa"], ["b"])
    assert len(stub.asked) == 4


def test_a_cache_that_cannot_be_written_is_named(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"oracle\.cache: .*cannot be written"):
        make(cache=str(tmp_path / "file" / "answers")).compare(["?"], ["aaa"], ["b"])


@pytest.mark.parametrize(
    "trouble",
    [
        Reply("boom", 500),
        Reply("busy", 503),
        Reply("slow down", 429, {"Retry-After": "0"}),
        Reply("<html>welcome</html>"),
        Reply('{"choices": []}'),
        Reply('{"error": {"message": "overloaded"}}'),
    ],
)
def test_trouble_that_passes_is_tried_again(make, stub, trouble):
    stub.reply = fails_first(2, trouble)
    oracle = make(max_parallel=1)
    assert oracle.compare(PROMPTS, FIRST, SECOND).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert oracle.counts() == {"comparisons": 4, "requests": 8, "retries": 2}


def test_waits_double_and_retry_after_is_heeded(make, stub, monkeypatch):
    waits: list[float | None] = []

    class Impatient(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return False

    monkeypatch.setattr(judge_client, "FIRST_WAIT", 1.0)
    client = judge_client.ChatClient(stub.url, "stub", None, 5.0, 4)
    replies = [Reply("", 500), Reply("", 429, {"Retry-After": "7"}), Reply("", 500), Reply("", 500), said("yes")]
    stub.reply = lambda body: replies.pop(0)
    with client:
        assert client.ask([], {}, Impatient()) == "yes"
    assert waits == [1.0, 7.0, 4.0, 8.0]


def test_retry_after_may_be_a_date():
    from email.utils import formatdate

    class Response:
        def __init__(self, value: str) -> None:
            self.headers = {"Retry-After": value}

    assert 50 < retry_after(Response(formatdate(time.time() + 60, usegmt=True))) <= 60
    assert retry_after(Response("2.5")) == 2.5
    assert retry_after(Response("-1")) == retry_after(Response("soon")) == retry_after(Response("")) == 0.0


def test_a_server_that_wants_an_hour_is_taken_for_down(make, stub):
    stub.reply = lambda body: Reply("come back later", 429, {"Retry-After": "3600"})
    with pytest.raises(InputError, match="asks to wait 3600 s, longer than 120 s"):
        make().compare(["?"], ["aaa"], ["b"])


def test_when_it_goes_down_everything_so_far_is_kept(make, stub, tmp_path):
    served = []

    def reply(body):
        served.append(body)
        return prefers_longer(body) if len(served) <= 3 else Reply("gone", 503)

    stub.reply = reply
    with pytest.raises(InputError) as caught:
        make(max_parallel=1, retries=2).compare(PROMPTS, FIRST, SECOND)
    message = str(caught.value)
    assert "gave no answer in 3 tries" in message and "HTTP 503: gone" in message
    assert f"3 of the 6 verdicts asked for just now are kept in {tmp_path / 'answers'}" in message
    assert "nashtune fit --ckpt_path last" in message
    assert len(stub.asked) == 6  # three answers, and three tries of the fourth question; the others are not begun
    stub.reply = prefers_longer
    oracle = make()
    assert oracle.compare(PROMPTS, FIRST, SECOND).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert oracle.counts()["requests"] == 3 and oracle.counts()["cache_hits"] == 3


def test_a_slow_endpoint_is_given_up(make, stub):
    release = threading.Event()
    stub.reply = lambda body: Reply("late", hold=release)
    try:
        with pytest.raises(InputError, match=r"gave no answer in 2 tries.*ReadTimeout"):
            make(timeout=0.1, retries=1).compare(["?"], ["aaa"], ["b"])
    finally:
        release.set()


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_client, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{free_port()}/v1"
    oracle = JudgeOracle(url=url, model="m", cache=str(tmp_path), retries=1)
    with pytest.raises(InputError, match=rf"nothing answers at {url} \(ConnectError.*start the server, or set oracle"):
        oracle.prepare()
    with pytest.raises(InputError, match="gave no answer in 2 tries"):
        oracle.compare(["?"], ["aaa"], ["b"])


def test_a_refused_request_is_not_repeated(make, stub):
    stub.reply = lambda body: Reply('{"error": "context is 10 tokens"}', 400)
    with pytest.raises(InputError, match=r"refuses the model 'stub': HTTP 400: .*context is 10 tokens"):
        make(max_parallel=1).compare(["?"], ["aaa"], ["b"])
    assert len(stub.asked) == 1


def test_an_answer_without_a_verdict_is_asked_for_again(make, stub):
    def reply(body):
        return said("Well, both.") if len(body["messages"]) == 1 else prefers_longer(body)

    stub.reply = reply
    oracle = make()
    assert oracle.compare(["?"], ["aaa"], ["b"]).item() == 1.0
    roles = [[message["role"] for message in body["messages"]] for body in stub.asked]
    assert sorted(roles) == [["user"], ["user"], ["user", "assistant", "user"], ["user", "assistant", "user"]]
    again = max(stub.asked, key=lambda body: len(body["messages"]))
    assert again["messages"][1]["content"] == "Well, both." and "[[tie]]" in again["messages"][2]["content"]
    assert oracle.counts() == {"comparisons": 1, "requests": 4, "unparsed_answers": 2}
    make().compare(["?"], ["aaa"], ["b"])
    assert len(stub.asked) == 4  # the verdict is kept under the first question


def test_no_verdict_is_never_a_tie(make, stub):
    stub.reply = lambda body: said("I like both.")
    oracle = make(max_parallel=1)
    with pytest.raises(InputError, match=r"was asked 3 times and gave no verdict; its last answer: 'I like both\.'"):
        oracle.compare(["?"], ["aaa"], ["b"])
    assert oracle.counts() == {"requests": 3, "unparsed_answers": 3}


def test_no_verdict_can_be_dropped_and_is_counted(make, stub):
    def reply(body):
        return said(None) if "[Request]\ntwo" in body["messages"][0]["content"] else prefers_longer(body)

    stub.reply = reply
    oracle = make(on_parse_failure="drop", asks=2)
    p = oracle.compare(PROMPTS, FIRST, SECOND)
    assert p.isnan().tolist() == [False, True, False, False] and p[[0, 2, 3]].tolist() == [1.0, 0.5, 0.5]
    assert oracle.counts() == {"comparisons": 4, "requests": 8, "unparsed_answers": 4, "unparsed": 1}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("[[A]]", 1),
        ("Answer B is worse.\n[[A]]", 1),
        ("[[B]]", -1),
        ("[[tie]]", 0),
        ("[[A]] indeed, [[A]]", 1),
        ("not [[A]] but [[B]]", None),
        ("A", None),
        ("[[a]]", None),
        ("[[C]]", None),
        ("", None),
    ],
)
def test_verdicts_are_read_strictly(answer, verdict):
    assert verdict_reader(VERDICT, ("A", "B", "tie"))(answer) == verdict


def test_other_words_for_the_verdict():
    read = verdict_reader(r"^\s*(first|second|equal)\b", ("first", "second", "equal"))
    assert [read(text) for text in (" second one", "equal", "the first")] == [-1, 0, None]


def test_the_key_comes_from_the_environment_and_shows_nowhere(make, stub, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", "very-secret")
    oracle = make(api_key_env="JUDGE_KEY")
    oracle.prepare()
    oracle.compare(["?"], ["aaa"], ["b"])
    assert {headers["Authorization"] for headers in stub.headers} == {"Bearer very-secret"}
    assert "secret" not in "".join(file.read_text() for file in (tmp_path / "answers").rglob("*.json"))
    stub.models = Reply("bad key very-secret", 401)
    with pytest.raises(InputError, match=r"HTTP 401: bad key \*\*\*; is the key in JUDGE_KEY right\?"):
        oracle.prepare()


def test_a_missing_key_is_named_before_anything_is_sent(make, stub, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match="the environment variable JUDGE_KEY is not set"):
        make(api_key_env="JUDGE_KEY").prepare()
    assert stub.asked == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key_env": "sk-abc"}, "this is no name of an environment variable"),
        ({"url": "localhost:8000"}, "'localhost:8000' is no address"),
        ({"url": "http://me:pw@host/v1"}, "holds a user name or password"),
        ({"url": "http://host/v1/chat/completions"}, "give what comes before"),
        ({"verdict": "(A)|(B)"}, "has 2 groups"),
        ({"verdict": "(A"}, "is not a regular expression"),
        ({"verdicts": ("A", "A", "B")}, "three different texts"),
        ({"prompt_template": "{first} {second}"}, "no {prompt}"),
        ({"extra": {"stream": True}}, "stream cannot be set there"),
        ({"extra": {"x": {1, 2}}}, "cannot be written as JSON"),
    ],
)
def test_wrong_settings_are_refused(make, options, words):
    with pytest.raises(InputError) as caught:
        make(**options)
    assert words in str(caught.value)
    assert "sk-abc" not in str(caught.value) and "pw" not in str(caught.value)


def test_addresses():
    assert endpoint("http://localhost:8000") == endpoint("http://localhost:8000/v1/") == "http://localhost:8000/v1"
    assert endpoint("https://host/api/v1") == "https://host/api/v1"


def test_prepare_believes_the_list_of_models(make, stub):
    make().prepare()
    assert stub.asked == []


def test_prepare_asks_a_model_that_is_not_listed(make, stub):
    stub.models = Reply("no list here", 500)
    stub.reply = lambda body: said("yes")
    make().prepare()
    assert len(stub.asked) == 1
    stub.models = Reply(json.dumps({"data": [{"id": "judge-7b"}]}))
    stub.reply = lambda body: Reply("no such model", 404)
    with pytest.raises(InputError, match=r"'judge-8b': HTTP 404: no such model; did you mean 'judge-7b'\?"):
        make(model="judge-8b").prepare()
    stub.reply = lambda body: Reply("down", 503)
    with pytest.raises(InputError, match="gave no answer in 2 tries"):
        make(model="judge-8b", retries=1).prepare()


def test_no_more_requests_at_a_time_than_allowed(make, stub):
    now, most, lock = [0], [0], threading.Lock()

    def work(question: int, stop: threading.Event) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return question * 2

    results, failure = in_parallel(work, range(12), 3)
    assert results == {i: 2 * i for i in range(12)} and failure is None and most[0] <= 3


def test_an_interrupt_does_not_wait_for_the_endpoint(make, stub, monkeypatch):
    release = threading.Event()
    stub.reply = lambda body: Reply("late", hold=release)
    oracle = make(timeout=30.0)
    main = threading.main_thread()

    def interrupt() -> None:
        while not stub.asked:
            time.sleep(0.01)
        signal.pthread_kill(main.ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            oracle.compare(["?"], ["aaa"], ["b"])
        waiting = [thread for thread in threading.enumerate() if thread.name == "judge"]
        assert waiting and all(thread.daemon for thread in waiting)  # they do not hold up the end of the process
    finally:
        release.set()
        for thread in waiting:
            thread.join(10)
