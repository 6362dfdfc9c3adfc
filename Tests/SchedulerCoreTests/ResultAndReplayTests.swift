import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite struct ResultTests {
    @Test func theResultOfAnAttemptIsTheWorkersToTell() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .finish(outcome()))
        bench.send(.resultSeen("a"))
        bench.pass(.seconds(60), beating: [1])
        #expect(bench.results.isEmpty)
    }

    @Test func aResultThatIsSeenBeforeItsRecordCounts() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.send(.resultSeen("a"))
        try bench.commit("a", .finish(outcome()))
        bench.pass(.seconds(60), beating: [1])
        #expect(bench.results.isEmpty)
        #expect(bench.places.last == bench.store.lastSequence)
    }

    @Test func aResultThatTheWorkerDoesNotTellIsToldByTheLeaderAfterTheGrace() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .fail(outcome(exit: 5)))
        bench.pass(.milliseconds(9_999), beating: [1])
        #expect(bench.results.isEmpty)
        bench.pass(.milliseconds(1), beating: [1])
        let result = try #require(bench.results.first)
        #expect(result.checkFirst)
        #expect(result.event.state == .failed)
        #expect(result.event.tries == 1)
        #expect(result.event.outcome?.returnCode == 5)
        bench.send(.resultSettled("a"))
        bench.pass(.seconds(60), beating: [1])
        #expect(bench.results.count == 1)
    }

    @Test func thePlaceIsStoredBehindTheLastResultThatIsMissing() throws {
        var bench = Bench()
        bench.start(1, slots: 3)
        for id in ["a", "b", "c"] as [JobID] { try bench.run(id) }
        for id in ["a", "b", "c"] as [JobID] { try bench.commit(id, .finish(outcome())) }
        let first = try #require(bench.store["a"]?.sequence)
        bench.pass(.seconds(2), beating: [1])
        #expect(bench.places.last == first - 1)
        bench.send(.resultSeen("b"))
        bench.pass(.seconds(2), beating: [1])
        #expect(bench.places.last == first - 1)
        bench.send(.resultSeen("a"))
        bench.pass(.seconds(2), beating: [1])
        #expect(bench.places.last == first + 1)
        bench.send(.resultSeen("c"))
        bench.pass(.seconds(2), beating: [1])
        #expect(bench.places.last == first + 2)
        #expect(bench.places == bench.places.sorted())
        #expect(Set(bench.places).count == bench.places.count)
    }

    @Test func thePlaceIsStoredWhenItsResultsAreSurelyOnTheDisk() throws {
        var bench = Bench(resultsLag: .seconds(150))
        bench.start(1, slots: 2)
        for id in ["a", "b"] as [JobID] { try bench.run(id) }
        try bench.commit("a", .finish(outcome()))
        bench.send(.resultSeen("a"))
        let first = try #require(bench.store["a"]?.sequence)
        bench.pass(.seconds(149), beating: [1])
        #expect(bench.places.isEmpty, "a power cut would take the result, and nobody would look for it again")
        try bench.commit("b", .finish(outcome()))
        bench.send(.resultSeen("b"))
        bench.pass(.seconds(3), beating: [1])
        #expect(bench.places == [first])
        bench.pass(.seconds(150), beating: [1])
        #expect(bench.places == [first, first + 1])
        bench.pass(.seconds(600), beating: [1])
        #expect(bench.places.count == 2)
    }

    @Test func aRetryIsDueAfterItsDelayAlthoughTheServersClockWasPutBack() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        try old.commit("a", .retry(outcome(exit: 1), delay: .seconds(8)))
        // By the server's clock, which is an hour behind now, the record will be stored in an hour.
        var bench = Bench.successor(of: old, after: .seconds(-3600))
        bench.pass(.seconds(7))
        bench.answer()
        #expect(bench.store["a"]?.record.state == .retry)
        bench.pass(.seconds(1))
        bench.answer()
        #expect(bench.store["a"]?.record.state != .retry)
    }

    @Test func aJobWaitsNoLongerThanItMayAlthoughTheServersClockWasPutBack() throws {
        var bench = Bench(isLeading: false)
        bench.send(.began(resultsPlace: 0, serverClockOffset: .seconds(3600)))
        bench.finishReplay()
        bench.submit(task("a", maxWait: 60))
        bench.answer()
        bench.pass(.seconds(59))
        #expect(bench.store["a"]?.record.state.isTerminal == false)
        bench.pass(.seconds(1))
        bench.answer()
        #expect(bench.store["a"]?.record.outcome?.code == .waitedTooLong)
    }

    @Test func aNewLeaderTellsWhatIsBehindThePlaceAndNothingBefore() throws {
        var old = Bench()
        old.start(1)
        for id in ["a", "b", "c"] as [JobID] { old.dispatch(id) }
        try old.end("a")
        old.send(.resultSeen("a"))
        old.pass(.seconds(2), beating: [1])
        let place = try #require(old.places.last)
        try old.end("b")
        old.cancel("c")
        old.answer()
        var bench = Bench.successor(of: old, after: .seconds(1), place: place)
        #expect(bench.results.isEmpty)
        bench.pass(.seconds(10))
        #expect(bench.results.map(\.event.job) == ["b", "c"])
        #expect(bench.results.map(\.checkFirst) == [true, true], "its predecessor or the worker may have told them")
        for id in ["b", "c"] as [JobID] { bench.send(.resultSettled(id)) }
        bench.pass(.seconds(60))
        #expect(bench.results.count == 2)
        #expect(bench.places.last == bench.store.lastSequence)
    }

    @Test func aRecordReadAheadOfTheStreamDoesNotMoveThePlace() throws {
        var bench = Bench()
        bench.start(1, slots: 2)
        try bench.run("b")
        bench.dispatch("a")
        try bench.commit("b", .finish(outcome()))
        bench.send(.resultSeen("b"))
        let known = bench.store.lastSequence
        try bench.commitUnheard("a", .claim)
        try bench.commitUnheard("a", .finish(outcome()))
        let theirs = JobRecord(
            admitting: "theirs",
            submission: task("theirs"),
            digest: digest(task("theirs")),
            order: 2,
            limits: .none,
            op: "theirs",
            at: bench.now,
            submitted: 0
        )
        _ = bench.store.write(theirs, expected: 0, at: bench.now)
        bench.cancel("theirs")
        bench.answerReads()
        bench.passWithoutWrites(.seconds(3))
        #expect(bench.places == [known])
        let ended = try #require(bench.store["a"])
        bench.send(.recordChanged(ended))
        bench.pass(.seconds(20), beating: [1])
        #expect(bench.results.map(\.event.job).contains("a"))
    }

    @Test func aRecordThatEndsAheadOfTheStreamIsExpectedOnce() throws {
        var bench = Bench()
        bench.dispatch("a")
        bench.cancel("a")
        let write = try #require(bench.writes.first)
        bench.writes.removeFirst()
        let result = bench.store.write(write.record, expected: write.expected, at: bench.now)
        bench.send(.writeEnded("a", write.record.op, result))
        bench.send(.resultSettled("a"))
        bench.pass(.seconds(5))
        bench.send(.recordChanged(try #require(bench.store["a"])))
        bench.pass(.seconds(60))
        #expect(bench.results.count == 1)
        #expect(bench.places.last == bench.store.lastSequence)
    }
}

@Suite struct ReplayTests {
    @Test func aNewLeaderGoesOnWithEveryKindOfRecord() throws {
        var old = Bench()
        old.start(1, slots: 4)
        try old.run("running")
        try old.run("done")
        try old.commit("done", .finish(outcome()))
        try old.run("retry")
        try old.commit("retry", .retry(outcome(exit: 1), delay: .seconds(30)))
        old.dispatch("scheduled")
        old.dispatch("pinned", gpu: 9)
        old.pass(.seconds(2), beating: [1])
        old.setSlots(1, 2)
        old.beat(1)
        old.dispatch("enqueued")
        old.cancel("cancelled")
        old.answerReads()
        old.submit(Array(#"{"task_id":"rejected","cmd":[]}"#.utf8))
        old.answer()
        let states = old.store.revisions.map(\.record.state)
        #expect(Set(states) == Set(JobState.allCases).subtracting([.failed]))
        let failed = old.record("retry")?.attempt
        let unclaimed = old.record("scheduled")?.attempt

        var bench = Bench.successor(of: old, after: .seconds(1))
        #expect(bench.core.queueSize == 3)
        #expect(bench.core.inflight == 2)
        bench.setSlots(1, 4)
        bench.registration(1, isReleased: false)
        bench.beat(1)
        bench.answer()
        #expect(bench.state("enqueued") == .scheduled, "it is in the queue")
        #expect(bench.state("running") == .running)
        bench.pass(.seconds(26), beating: [1])
        #expect(bench.state("retry") == .retry)
        bench.pass(.seconds(1), beating: [1])
        #expect(bench.record("retry")?.attempt != failed, "its backoff began when it was stored")
        bench.start(9)
        #expect(bench.record("pinned")?.gpu == 9)
        bench.pass(.seconds(30), beating: [1, 9])
        #expect(bench.record("scheduled")?.attempt != unclaimed, "nobody claimed it")
    }

    @Test func aNewLeaderSendsTheRunMessagesAgainThatTheOldOneMayNotHaveSent() throws {
        var old = Bench()
        old.start(1, slots: 2)
        try old.run("running")
        old.dispatch("scheduled")
        let scheduled = try #require(old.store["scheduled"])
        var bench = Bench.successor(of: old, after: .seconds(1), isReplayed: false)
        #expect(bench.runs.isEmpty, "the record may yet change")
        bench.finishReplay()
        #expect(bench.runs.map(\.message.record) == [scheduled.record])
        #expect(bench.runs.first?.message.sequence == scheduled.sequence)
    }

    @Test func nothingIsPulledPlacedOrWrittenBeforeTheReplayIsFinished() throws {
        var old = Bench()
        old.dispatch("a")
        var bench = Bench.successor(of: old, after: .seconds(1), isReplayed: false)
        bench.start(1)
        #expect(bench.pulls.isEmpty)
        #expect(bench.writes.isEmpty)
        bench.finishReplay()
        #expect(bench.pulls.count == 1)
        bench.answer()
        #expect(bench.state("a") == .scheduled)
        #expect(bench.announcements.contains("leading"))
    }

    @Test func aBackoffThatPassesDuringTheReplayIsNotForgotten() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        try old.commit("a", .retry(outcome(exit: 1), delay: .seconds(3)))
        var bench = Bench.successor(of: old, after: .seconds(1), isReplayed: false)
        bench.pass(.seconds(5))
        bench.finishReplay()
        bench.answer()
        #expect(bench.state("a") == .enqueued)
    }

    @Test func aRecordMayChangeWhileItIsReplayed() throws {
        var old = Bench()
        old.start(1)
        try old.run("a")
        var bench = Bench.successor(of: old, after: .seconds(1), isReplayed: false)
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(3)))
        bench.finishReplay()
        bench.pass(.seconds(4))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.core.inflight == 0)
        #expect(bench.core.queueSize == 1)
    }

    @Test func anUnreadableRecordIsToldAndLeftAlone() {
        var bench = Bench(isLeading: false)
        bench.send(.began(resultsPlace: 0, serverClockOffset: .zero))
        bench.send(.recordUnreadable("a", sequence: 3, reason: "not valid JSON"))
        bench.send(.replayFinished(lastSequence: 3))
        #expect(bench.notices.count == 1)
        #expect(bench.notices.first?.contains("sequence 3") == true)
        #expect(bench.writes.isEmpty)
    }
}

@Suite struct AnswerTests {
    @Test func statusCountsWhatThereIs() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        bench.dispatch("b")
        bench.dispatch("c")
        bench.send(.statusAsked(RequestToken(1)))
        let status = try #require(bench.replies[1]?.first)
        #expect(status["ok"]?.boolValue == true)
        #expect(status["qsize"]?.intValue == 2)
        #expect(status["inflight"]?.intValue == 1)
        #expect(status["gpus_alive"]?.intValue == 1)
        #expect(status["queue_full"]?.boolValue == false)
    }

    @Test func cardsTellTheirStateAndWhatTheyRun() throws {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        bench.start(3)
        bench.start(4)
        try bench.run("a", gpu: 1)
        bench.read(1, busy: 60, temperature: 55)
        bench.read(2, temperature: 80)
        bench.beat(3, isDraining: true)
        bench.registration(4, isReleased: true)
        bench.pass(.seconds(3))
        bench.send(.cardsAsked(RequestToken(1)))
        let cards = try #require(bench.replies[1]?.first?["gpus"]?.arrayValue)
        #expect(cards.map { $0["state"]?.stringValue } == ["up", "hot", "draining", "gone"])
        #expect(cards.map { $0["gpu_id"]?.intValue } == [1, 2, 3, 4])
        let first = try #require(cards.first)
        #expect(first["running"]?.arrayValue == ["a"])
        #expect(first["busy_percent"]?.doubleValue == 60)
        #expect(first["temp_c"]?.doubleValue == 55)
        #expect(first["heartbeat_age"]?.doubleValue == 3)
        #expect(first["metrics_age"]?.doubleValue == 3)
        #expect(first["incarnation"]?.stringValue == bench.life(of: 1)?.text)
    }

    @Test func whyTellsOfAWaitingJobWhatEachCardLacks() throws {
        var bench = Bench()
        bench.start(1)
        bench.start(2)
        bench.read(2, temperature: 90)
        try bench.run("a")
        bench.dispatch("b")
        bench.send(.whyAsked("b", RequestToken(1)))
        let answer = try #require(bench.replies[1]?.first)
        #expect(answer["state"]?.stringValue == "enqueued")
        #expect(answer["reason"]?.stringValue == "every slot of the cards that may run it is taken")
        let cards = try #require(answer["cards"]?.arrayValue)
        #expect(cards.map { $0["eligible"]?.boolValue } == [false, false])
        #expect(cards.first?["reason"]?.stringValue == "all its slots are taken")
        #expect(cards.last?["reason"]?.stringValue?.hasPrefix("hot: 90") == true)
    }

    @Test func whyTellsOfAJobPinnedToAnAbsentCard() throws {
        var bench = Bench()
        bench.dispatch("a", gpu: 8)
        bench.send(.whyAsked("a", RequestToken(1)))
        let answer = try #require(bench.replies[1]?.first)
        #expect(answer["reason"]?.stringValue?.contains("card 8") == true)
        #expect(answer["cards"]?.arrayValue?.map { $0["eligible"]?.boolValue } == [false])
    }

    @Test func whyTellsWhenAFailedAttemptIsDueAgain() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .retry(outcome(exit: 1), delay: .seconds(8)))
        bench.pass(.seconds(3), beating: [1])
        bench.send(.whyAsked("a", RequestToken(1)))
        let answer = try #require(bench.replies[1]?.first)
        #expect(answer["state"]?.stringValue == "retry")
        #expect(answer["due_in"]?.doubleValue == 5)
        #expect(answer["reason"]?.stringValue == "exited with status 1")
    }

    @Test func whyReadsTheRecordOfAJobThatHasEnded() throws {
        var bench = Bench()
        bench.start(1)
        try bench.run("a")
        try bench.commit("a", .fail(outcome(exit: 9)))
        bench.send(.whyAsked("a", RequestToken(1)))
        bench.send(.whyAsked("nobody", RequestToken(2)))
        #expect(bench.replies.isEmpty)
        bench.answerReads()
        #expect(bench.replies[1]?.first?["state"]?.stringValue == "failed")
        #expect(bench.replies[1]?.first?["reason"]?.stringValue == "exited with status 9")
        #expect(bench.replies[2]?.first?["ok"]?.boolValue == false)
        #expect(bench.replies[2]?.first?["code"]?.stringValue == "unknown_job")
    }

    @Test func whySaysThatTheStreamRefusedTheLastWrite() throws {
        var bench = Bench()
        bench.start(1)
        bench.submit(task("a"))
        bench.answerWrite()
        bench.answerWrite(.refused("maximum bytes exceeded"))
        bench.send(.whyAsked("a", RequestToken(1)))
        #expect(bench.replies[1]?.first?["reason"]?.stringValue?.contains("refused") == true)
    }
}
