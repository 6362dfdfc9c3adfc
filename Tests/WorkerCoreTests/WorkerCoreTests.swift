import JobModel
import Testing
import WorkerCore

/// Each decision of a worker by itself.
struct WorkerCoreTests {
    // MARK: claims

    @Test func aJobRunsFromItsMessageToItsAck() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        #expect(bench.core.running == [Heartbeat.RunningAttempt(job: started.job, attempt: started.attempt)])
        let events = try bench.end(started, .code(0), output: "OK\n")
        #expect(events.words == ["done", "result done"])
        #expect(try bench.state("a") == .done)
        #expect(bench.core.running.isEmpty)
        #expect(try #require(bench.records[started.job]).record.outcome?.standardOutputTail == "OK\n")
    }

    @Test func onlyTheRecordDecidesWhoRunsAJob() throws {
        let bench = try Bench.serving()
        func nothingRuns(_ bench: Bench, _ message: RunMessage) {
            let token = bench.deliver(message)
            bench.answer()
            #expect(bench.take(.ack(token)))
            #expect(!bench.todo.contains { if case .start = $0 { true } else { false } })
        }
        let taken = try bench.dispatch("taken")
        try bench.move(taken.record.id, .takeBack(reason: ""))
        nothingRuns(bench, taken)

        let given = try bench.dispatch("given")
        try bench.move(given.record.id, .takeBack(reason: ""))
        let step = JobTransition.schedule(
            gpu: bench.gpu,
            attempt: AttemptID(from: &bench.ids),
            owner: bench.incarnation
        )
        try bench.move(given.record.id, step)
        nothingRuns(bench, given)

        nothingRuns(bench, try bench.dispatch("another-life", owner: bench.otherLife))

        let missing = try bench.dispatch("missing")
        bench.records = [:]
        nothingRuns(bench, missing)

        var ended = try bench.dispatch("ended")
        try bench.move(ended.record.id, .cancel(reason: "", nil))
        ended = RunMessage(record: ended.record, sequence: bench.lastSequence)
        nothingRuns(bench, ended)
    }

    @Test func aClaimThatIsOvertakenIsDropped() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let token = bench.deliver(message)
        let prepared = try #require(bench.takeStoreAction())
        bench.handle(prepared)
        try bench.move(message.record.id, .takeBack(reason: "not claimed in time"))
        bench.answer()
        #expect(bench.take(.ack(token)))
        #expect(try bench.state("a") == .enqueued)
    }

    @Test func aRefusedClaimIsGivenBackForLater() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let token = bench.deliver(message)
        bench.handle(try #require(bench.takeStoreAction()))
        let (attempt, record) = try #require(
            bench.take { if case .write(let id, let record, _) = $0 { (id, record) } else { nil } }
        )
        bench.handle(.writeEnded(attempt, record.op, .refused("the stream is full")))
        #expect(bench.take(.nak(token, delay: .seconds(1))))
    }

    @Test func aMessageDeliveredAgainChangesNothing() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let token = bench.deliver(message)
        bench.answer()
        let before = bench.todo
        _ = bench.deliver(message, number: token.number)
        #expect(bench.todo.filter { !before.contains($0) } == [.pull(1)], "one that was asked for has come")
    }

    @Test func aSecondMessageOfAnAttemptInHandIsAcknowledgedAtOnce() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let first = bench.deliver(message)
        bench.answer()
        let second = bench.deliver(message)
        #expect(bench.take(.ack(second)))
        #expect(!bench.todo.contains(.ack(first)), "it stays until the job has ended")
    }

    @Test func aRunningRecordOfAnotherLifeIsClosedAsLost() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a", owner: bench.otherLife)
        try bench.move(message.record.id, .claim)
        let token = bench.deliver(message)
        bench.answer()
        #expect(try bench.state("a") == .enqueued)
        let events = try #require(bench.take { if case .tell(_, let events) = $0 { events } else { nil } })
        #expect(events.words == ["error lost"])
        bench.handle(.told(try #require(message.attempt)))
        #expect(bench.take(.ack(token)))
    }

    @Test func aForbiddenTaskIsRejectedAndNeverStarted() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let token = bench.deliver(message)
        bench.answer(objection: TaskObjection(code: .forbidden, reason: "outside the cache"))
        #expect(try bench.state("a") == .rejected)
        let events = try #require(bench.take { if case .tell(_, let events) = $0 { events } else { nil } })
        #expect(events.words == ["error forbidden", "result rejected"])
        #expect(bench.core.running.isEmpty)
        bench.handle(.told(try #require(message.attempt)))
        #expect(bench.take(.ack(token)))
    }

    @Test func aMessageThatNoMaestroSentIsToldWhereToGo() throws {
        let bench = try Bench.serving()
        bench.handle(.badRunReceived(reason: "it holds no record", nil, MessageToken(5)))
        let event = try #require(
            bench.take { if case .refuse(let event, _, MessageToken(5)) = $0 { event } else { nil } }
        )
        #expect(event.code == .notDispatched && event.error.contains("gpu.task.enqueue"))
    }

    // MARK: slots

    @Test func slotsAreNeverOverbookedAndTheNextWaitsInHand() throws {
        let bench = try Bench.serving(WorkerPolicy(slots: 2))
        #expect(bench.take(.pull(4)))
        let messages = try ["a", "b", "c", "d"].map { try bench.dispatch($0) }
        for message in messages { _ = bench.deliver(message) }
        bench.answer()
        let started = bench.todo.compactMap { if case .start(_, let record) = $0 { record.id.text } else { nil } }
        #expect(started == ["a", "b"])
        #expect(try bench.state("c") == .scheduled)
        bench.handle(.started(try #require(messages[0].attempt), directory: "/"))
        bench.handle(.ended(try #require(messages[0].attempt), ProcessEnd(exit: .code(0))))
        bench.answer()
        // The slot is free when the process is gone, before the end is told.
        #expect(try bench.state("c") == .running)
        #expect(bench.todo.contains(.pull(1)))
    }

    @Test func jobsStartInTheOrderOfTheirMessages() throws {
        let bench = try Bench.serving()
        let first = try bench.dispatch("first")
        let second = try bench.dispatch("second")
        for message in [first, second] { _ = bench.deliver(message) }
        for message in [second, first] {
            let attempt = try #require(message.attempt)
            #expect(bench.take(.prepare(message)))
            bench.handle(.prepared(attempt, bench.records[message.record.id], nil))
        }
        bench.answer()
        #expect(try bench.state("first") == .running)
        #expect(try bench.state("second") == .scheduled)
    }

    @Test func aProcessThatCannotBeKilledClosesItsSlot() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        #expect(try bench.end(started, .unkillable).words == ["error worker_fault", "result failed"])
        let token = bench.deliver(try bench.dispatch("b"))
        bench.answer()
        #expect(try bench.state("b") == .scheduled)
        #expect(!bench.todo.contains(.ack(token)))
    }

    // MARK: time

    @Test func messagesInHandAreKeptQuietAtAThirdOfTheAckWait() throws {
        let bench = try Bench.serving(WorkerPolicy(slots: 1, ackWait: .seconds(30)))
        let first = try bench.run("a")
        let second = bench.deliver(try bench.dispatch("b"))
        bench.pass(.seconds(9))
        #expect(!bench.todo.contains { if case .inProgress = $0 { true } else { false } })
        bench.pass(.seconds(1))
        #expect(bench.take(.inProgress([first.token, second])))
        bench.pass(.seconds(10))
        #expect(bench.take(.inProgress([first.token, second])))
    }

    @Test func aTimeoutIsTermThenGraceThenKill() throws {
        let bench = try Bench.serving(WorkerPolicy(grace: .seconds(5)))
        let started = try bench.run("a", timeout: .seconds(2), retries: 0)
        bench.pass(.seconds(1))
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        bench.pass(.seconds(1))
        #expect(bench.take(.terminate(started.attempt)))
        bench.pass(.seconds(4))
        #expect(!bench.todo.contains(.kill(started.attempt)))
        bench.pass(.seconds(1))
        #expect(bench.take(.kill(started.attempt)))
        let events = try bench.end(started, .signal(9))
        #expect(events.words == ["error timeout", "result failed"])
        let outcome = try #require(bench.records[started.job]).record.outcome
        #expect(outcome?.returnCode == -9 && outcome?.duration == .seconds(7))
        #expect(outcome?.reason.contains("2 s") == true)
    }

    @Test func theTimerIsArmedForTheEarliestThing() throws {
        let bench = try Bench.serving(WorkerPolicy(ackWait: .seconds(30)))
        let started = try bench.run("a", timeout: .seconds(3))
        let armed = bench.todo.compactMap { if case .armTimer(let time) = $0 { time } else { nil } }
        #expect(armed.last == bench.now + .seconds(3))
        _ = try bench.end(started, .code(0))
        #expect(bench.todo.last { if case .armTimer = $0 { true } else { false } } == .armTimer(nil))
    }

    // MARK: ends

    @Test func aFailureIsRetriedAsLongAsThePolicyAllows() throws {
        let bench = try Bench.serving()
        #expect(try bench.end(try bench.run("a", retries: 1), .code(3)).words == ["error exit"])
        #expect(try bench.state("a") == .retry)
        #expect(try bench.end(try bench.run("b", retries: 0), .signal(11)).words == ["error signal", "result failed"])
    }

    @Test func whatCannotBeStartedIsAFailedAttempt() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a", retries: 0)
        let started = Bench.Started(
            attempt: try #require(message.attempt),
            token: bench.deliver(message),
            job: message.record.id
        )
        bench.answer()
        bench.handle(.startFailed(started.attempt, .spawn, reason: "no such program"))
        #expect(try bench.conclude(started).words == ["error spawn", "result failed"])
    }

    @Test func aCommitThatMeetsACancelRequestIsRepeated() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        try bench.move(started.job, .requestCancel(reason: "by hand"))
        #expect(try bench.end(started, .code(0)).words == ["done", "result done"])
    }

    @Test func aCommitOfAnAttemptThatWasGivenAwayIsDropped() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        try bench.move(started.job, .lose(reason: "not heard of"))
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        bench.handle(.reported(started.attempt))
        bench.answer()
        #expect(try bench.state("a") == .enqueued)
        #expect(!bench.todo.contains { if case .tell = $0 { true } else { false } })
        #expect(bench.take(.close(started.attempt, started.job)))
        #expect(bench.take(.ack(started.token)))
    }

    @Test func aRefusedCommitIsRepeatedAfterAPause() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        bench.handle(.reported(started.attempt))
        let record = try #require(bench.take { if case .write(_, let record, _) = $0 { record } else { nil } })
        bench.handle(.writeEnded(started.attempt, record.op, .refused("the stream is full")))
        #expect(bench.core.running.count == 1)
        bench.pass(.seconds(1))
        bench.answer()
        #expect(try bench.state("a") == .done)
    }

    // MARK: cancel

    @Test func aRunningJobIsCancelledOnRequest() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        try bench.move(started.job, .requestCancel(reason: "no longer needed"))
        bench.handle(.cancelAsked(started.job, started.attempt, RequestToken(1)))
        #expect(bench.take(.reply(RequestToken(1), .done)))
        #expect(bench.take(.terminate(started.attempt)))
        bench.pass(.seconds(5))
        #expect(bench.take(.kill(started.attempt)))
        #expect(try bench.end(started, .signal(9)).words == ["error cancelled", "result cancelled"])
        #expect(try #require(bench.records[started.job]).record.reason == "no longer needed")
    }

    @Test func anUnknownAttemptIsNotCancelled() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        let other = AttemptID(from: &bench.ids)
        bench.handle(.cancelAsked(started.job, other, RequestToken(1)))
        #expect(bench.take { if case .reply(RequestToken(1), let answer) = $0 { answer.error } else { nil } } != nil)
        #expect(!bench.todo.contains(.terminate(started.attempt)))
    }

    @Test func aCancelDuringTheClaimKeepsTheJobFromStarting() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let token = bench.deliver(message)
        bench.handle(try #require(bench.takeStoreAction()))
        bench.handle(.cancelAsked(message.record.id, try #require(message.attempt), RequestToken(1)))
        bench.answer()
        #expect(try bench.state("a") == .cancelled)
        #expect(!bench.todo.contains { if case .start = $0 { true } else { false } })
        bench.handle(.told(try #require(message.attempt)))
        #expect(bench.take(.ack(token)))
    }

    @Test func aCancelWhileTheProcessIsStartedEndsItThen() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        _ = bench.deliver(message)
        bench.answer()
        let attempt = try #require(message.attempt)
        bench.handle(.cancelAsked(message.record.id, attempt, RequestToken(1)))
        #expect(!bench.todo.contains(.terminate(attempt)))
        bench.handle(.started(attempt, directory: "/"))
        #expect(bench.take(.terminate(attempt)))
    }

    // MARK: connection

    @Test func afterALostConnectionWhatWasGivenAwayIsKilled() throws {
        let bench = try Bench.serving(WorkerPolicy(slots: 3))
        let kept = try bench.run("kept")
        let lost = try bench.run("lost")
        let cancelled = try bench.run("cancelled")
        try bench.move(lost.job, .lose(reason: "not heard of"))
        try bench.move(cancelled.job, .requestCancel(reason: "by hand"))
        bench.handle(.reconnected)
        bench.answer()
        #expect(!bench.todo.contains(.terminate(kept.attempt)))
        #expect(bench.take(.terminate(lost.attempt)))
        #expect(bench.take(.terminate(cancelled.attempt)))
    }

    @Test func whatWasGivenAwayBehindAConnectionThatHeldIsKilledBeforeLong() throws {
        let bench = try Bench.serving(WorkerPolicy(slots: 2, checkInterval: .seconds(15)))
        let kept = try bench.run("kept")
        let lost = try bench.run("lost")
        try bench.move(lost.job, .lose(reason: "not heard of"))
        bench.pass(.seconds(14))
        #expect(!bench.todo.contains(.readRecord(lost.job, lost.attempt)))
        bench.pass(.seconds(1))
        bench.pass(.seconds(15))
        #expect(bench.todo.count { $0 == .readRecord(kept.job, kept.attempt) } == 1, "one read of a record at a time")
        bench.answer()
        #expect(!bench.todo.contains(.terminate(kept.attempt)))
        #expect(bench.take(.terminate(lost.attempt)))
        bench.pass(.seconds(15))
        #expect(bench.take(.readRecord(kept.job, kept.attempt)))
    }

    // MARK: earlier lives

    @Test func attemptsOfAnEarlierLifeAreClosedBeforeAnythingElse() throws {
        let bench = try Bench()
        let running = try bench.dispatch("running", owner: bench.otherLife)
        try bench.move(running.record.id, .claim)
        let ended = try bench.dispatch("ended", owner: bench.otherLife)
        try bench.move(ended.record.id, .claim)
        let moved = try bench.dispatch("moved", owner: bench.otherLife)
        try bench.move(moved.record.id, .takeBack(reason: ""))
        let report = try bench.report(of: ended, AttemptOutcome(returnCode: 0))
        bench.handle(
            .began([
                RecoveredAttempt(job: running.record.id, attempt: try #require(running.attempt), report: nil),
                RecoveredAttempt(job: ended.record.id, attempt: try #require(ended.attempt), report: report),
                RecoveredAttempt(job: moved.record.id, attempt: AttemptID(from: &bench.ids), report: nil),
            ])
        )
        bench.answer()
        #expect(try bench.state("running") == .running, "its loss is on the disk before it is written")
        bench.handle(.reported(try #require(running.attempt)))
        bench.answer()
        #expect(try bench.state("running") == .enqueued)
        #expect(try bench.state("ended") == .done)
        #expect(!bench.todo.contains(.announceReady))
        #expect(!bench.todo.contains { if case .pull = $0 { true } else { false } })
        bench.handle(.told(try #require(running.attempt)))
        bench.handle(.told(try #require(ended.attempt)))
        #expect(bench.take(.announceReady))
        #expect(bench.take(.pull(2)))
    }

    /// Killed between the commit and the events, and the leader was quick.
    @Test func anEndIsToldAlsoWhenTheRecordHasMovedOn() throws {
        let retried = AttemptOutcome(code: .exit, reason: "exit", returnCode: 3)
        let given = AttemptOutcome(code: .drained, reason: "drained")
        let ends: [(JobTransition, AttemptOutcome, JobTransition?)] = [
            (.retry(retried, delay: .zero), retried, .requeue), (.lose(reason: "drained"), given, nil),
        ]
        for (end, outcome, next) in ends {
            let bench = try Bench()
            let message = try bench.dispatch("a", owner: bench.otherLife)
            let attempt = try #require(message.attempt)
            try bench.move(message.record.id, .claim)
            try bench.move(message.record.id, end)
            if let next { try bench.move(message.record.id, next) }
            let other = AttemptID(from: &bench.ids)
            try bench.move(message.record.id, .schedule(gpu: bench.gpu, attempt: other, owner: bench.otherLife))
            let report = try bench.report(of: message, outcome)
            bench.handle(.began([RecoveredAttempt(job: message.record.id, attempt: attempt, report: report)]))
            bench.answer()
            let events = try #require(bench.take { if case .tell(attempt, let events) = $0 { events } else { nil } })
            #expect(events.words == ["error \(try #require(outcome.code).rawValue)"])
            #expect(try bench.state("a") == .scheduled)
        }
    }

    @Test func anEndThatWasStoredAndPerhapsNotToldIsToldAgain() throws {
        let bench = try Bench()
        let message = try bench.dispatch("a", owner: bench.otherLife)
        try bench.move(message.record.id, .claim)
        let outcome = AttemptOutcome(code: .exit, reason: "exit", returnCode: 3)
        try bench.move(message.record.id, .fail(outcome))
        let report = try bench.report(of: message, outcome)
        let open = RecoveredAttempt(job: message.record.id, attempt: try #require(message.attempt), report: report)
        bench.handle(.began([open]))
        bench.answer()
        let events = try #require(bench.take { if case .tell(_, let events) = $0 { events } else { nil } })
        #expect(events.words == ["error exit", "result failed"])
    }

    /// The server hung on the write of its end, the worker was killed, and its next life read the record before that write
    /// arrived after all.
    @Test func anEndThatArrivesLateIsToldByTheNextLife() throws {
        let bench = try Bench()
        let message = try bench.dispatch("a", owner: bench.otherLife)
        let (job, attempt) = (message.record.id, try #require(message.attempt))
        try bench.move(job, .claim)
        let report = try bench.report(of: message, AttemptOutcome(returnCode: 0))
        bench.handle(.began([RecoveredAttempt(job: job, attempt: attempt, report: report)]))
        bench.handle(try #require(bench.takeStoreAction()))
        #expect(bench.todo.contains { if case .write(attempt, _, _) = $0 { true } else { false } })
        try bench.move(job, .finish(report.outcome))
        bench.answer()
        let events = try #require(bench.take { if case .tell(attempt, let events) = $0 { events } else { nil } })
        #expect(events.words == ["done", "result done"])
    }

    /// The same within one life: the connection was lost, so the record is looked at before its end is written again.
    @Test func anEndThatArrivedWhileTheConnectionWasLostIsTold() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        bench.handle(.reconnected)
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        if bench.take(.examine(started.attempt)) { bench.handle(.examined(started.attempt)) }
        let report = try #require(
            bench.take { if case .report(let report) = $0, report.attempt == started.attempt { report } else { nil } }
        )
        bench.handle(.reported(started.attempt))
        try bench.move(started.job, .finish(report.outcome))
        bench.answer()
        let told = bench.take { if case .tell(started.attempt, let events) = $0 { events } else { nil } }
        #expect(try #require(told).words == ["done", "result done"])
    }

    // MARK: stopping

    @Test func stoppingLetsRunningJobsEndAndGivesTheRestBack() throws {
        let bench = try Bench.serving(WorkerPolicy(drain: .seconds(30)))
        let started = try bench.run("a")
        let waiting = bench.deliver(try bench.dispatch("b"))
        bench.answer()
        bench.handle(.stopAsked)
        #expect(bench.core.isDraining)
        #expect(bench.take(.nak(waiting, delay: .zero)))
        #expect(bench.take(.heartbeat))
        bench.todo.removeAll { if case .pull = $0 { true } else { false } }
        let late = bench.deliver(try bench.dispatch("c"))
        #expect(bench.take(.nak(late, delay: .zero)))
        #expect(!bench.todo.contains(.finish))
        #expect(try bench.end(started, .code(0)).words == ["done", "result done"])
        #expect(bench.take(.finish))
        #expect(!bench.todo.contains { if case .pull = $0 { true } else { false } })
    }

    @Test func whatOutlastsTheDrainGoesBackWithoutBlame() throws {
        let bench = try Bench.serving(WorkerPolicy(grace: .seconds(5), drain: .seconds(30)))
        let started = try bench.run("a", timeout: .seconds(600), retries: 0)
        bench.handle(.stopAsked)
        bench.pass(.seconds(29))
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        bench.pass(.seconds(1))
        #expect(bench.take(.terminate(started.attempt)))
        #expect(try bench.end(started, .signal(15)).words == ["error drained"])
        let record = try #require(bench.records[started.job]).record
        #expect(record.state == .enqueued && record.lost == 1)
        #expect(bench.take(.finish))
    }

    @Test func beingToldTwiceToStopEndsTheWaiting() throws {
        let bench = try Bench.serving(WorkerPolicy(drain: .seconds(600)))
        let started = try bench.run("a")
        bench.handle(.stopAsked)
        bench.handle(.stopAsked)
        #expect(bench.take(.terminate(started.attempt)))
    }

    @Test func stoppingWithNothingInHandEndsAtOnce() throws {
        let bench = try Bench.serving()
        bench.handle(.stopAsked)
        #expect(bench.take(.finish))
    }

    @Test func anAttemptThatWasRunIsNotRunAgainWhenItsStreamWasPutBack() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let first = bench.deliver(message)
        bench.answer()
        let attempt = try #require(message.attempt)
        let record = try #require(bench.take { if case .start(attempt, let record) = $0 { record } else { nil } })
        bench.handle(.started(attempt, directory: "/"))
        let started = Bench.Started(attempt: attempt, token: first, job: record.id)
        #expect(try bench.end(started, .code(0)).words == ["done", "result done"])
        // The power was cut: the record stands where it was dispatched, and so does its message.
        bench.records[record.id] = RecordRevision(record: message.record, sequence: message.sequence)
        let again = bench.deliver(message, number: 77)
        bench.answer()
        #expect(bench.take(.ack(again)))
        #expect(bench.take { if case .start = $0 { true } else { nil } } == nil)
        #expect(try bench.state("a") == .scheduled, "the leader takes it back")
    }
}
