import JobModel
import Testing
import WorkerCore

/// What heat, sickness and the leader's requests do to the attempts of a card.
struct CardTests {
    private let hot = CardHold(.hot, reason: "too hot: 80 °C")
    private let overheated = CardHold(.overheated, reason: "overheated: 90 °C, jobs end from 89 °C")
    private let unhealthy = CardHold(.unhealthy, reason: "NVML 15: GPU is lost")

    private func isPull(_ action: WorkerAction) -> Bool { if case .pull = action { true } else { false } }
    private func isClaim(_ action: WorkerAction) -> Bool { if case .write = action { true } else { false } }

    @Test func aHeldCardClaimsNothingAndGivesBackWhatWaits() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        let second = bench.deliver(try bench.dispatch("b"))
        bench.answer()
        bench.todo.removeAll(where: isPull)
        bench.handle(.cardHeld(hot))
        #expect(bench.take(.nak(second, delay: .zero)))
        // What runs goes on, to its end; the slot that it leaves is not filled.
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        let late = bench.deliver(try bench.dispatch("c"))
        #expect(bench.take(.nak(late, delay: .zero)))
        #expect(try bench.end(started, .code(0)).words == ["done", "result done"])
        #expect(!bench.todo.contains(where: isPull) && !bench.todo.contains(where: isClaim))
        #expect(try bench.state("b") == .scheduled, "the leader takes it back")
        bench.handle(.cardHeld(nil))
        #expect(bench.todo.contains(where: isPull))
        _ = try bench.run("d")
    }

    /// The hold that is there before the first message keeps it from being asked for.
    @Test func aCardThatIsHeldFromTheBeginningAsksForNothing() throws {
        let bench = try Bench()
        bench.handle(.cardHeld(CardHold(.sensor, reason: "its temperature cannot be read")))
        bench.handle(.began([]))
        #expect(bench.take(.announceReady))
        #expect(!bench.todo.contains(where: isPull))
    }

    @Test(arguments: [(CardHold.Code.overheated, "overheated"), (.unhealthy, "card_failed")])
    func aHoldThatEndsJobsGivesThemBackWithoutBlame(code: CardHold.Code, word: String) throws {
        let bench = try Bench.serving(WorkerPolicy(slots: 2, grace: .seconds(5)))
        let (a, b) = (try bench.run("a", retries: 0), try bench.run("b", retries: 0))
        bench.todo.removeAll(where: isPull)
        bench.handle(.cardHeld(CardHold(code, reason: "as it is")))
        #expect(bench.take(.terminate(a.attempt)) && bench.take(.terminate(b.attempt)))
        // Each look at the card says so again.
        bench.handle(.cardHeld(CardHold(code, reason: "as it is")))
        #expect(!bench.todo.contains(.terminate(a.attempt)))
        bench.pass(.seconds(5))
        #expect(bench.take(.kill(a.attempt)))
        #expect(try bench.end(a, .signal(9)).words == ["error \(word)"])
        #expect(try bench.end(b, .signal(15)).words == ["error \(word)"])
        let record = try #require(bench.records[a.job]).record
        #expect(record.state == .enqueued && record.lost == 1 && record.failures == 0)
        #expect(record.reason == "as it is")
        #expect(!bench.todo.contains(where: isPull))
    }

    @Test func whatIsBeingStartedOnASickCardEndsWhenItHasStarted() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a", retries: 0)
        let token = bench.deliver(message)
        bench.answer()
        let attempt = try #require(message.attempt)
        bench.handle(.cardHeld(unhealthy))
        #expect(!bench.todo.contains(.terminate(attempt)))
        bench.handle(.started(attempt, directory: "/"))
        #expect(bench.take(.terminate(attempt)))
        let started = Bench.Started(attempt: attempt, token: token, job: message.record.id)
        #expect(try bench.end(started, .signal(15)).words == ["error card_failed"])
    }

    /// The claim was on its way when the card fell ill: no process is started.
    @Test func whatIsClaimedForASickCardIsGivenBackUnstarted() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a", retries: 0)
        _ = bench.deliver(message)
        bench.handle(try #require(bench.takeStoreAction()))
        bench.handle(.cardHeld(overheated))
        bench.answer()
        #expect(!bench.todo.contains { if case .start = $0 { true } else { false } })
        let record = try #require(bench.records[message.record.id]).record
        #expect(record.state == .enqueued && record.lost == 1 && record.tries == 1)
    }

    /// Reset and recovered: what ran is spoilt, the card goes on.
    @Test func aPassingFaultEndsWhatRunsAndNothingElse() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.cardFailed(reason: "the card was reset"))
        #expect(bench.take(.terminate(started.attempt)))
        #expect(try bench.end(started, .code(1)).words == ["error card_failed"])
        #expect(try #require(bench.records[started.job]).record.reason == "the card was reset")
        _ = try bench.run("b")
    }

    /// The job noticed first that its card was gone.
    @Test func whatFailsWithItsCardHasNotFailedByItself() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(1))))
        #expect(bench.take(.examine(started.attempt)))
        #expect(bench.core.running.map(\.attempt) == [started.attempt])
        bench.handle(.cardHeld(unhealthy))
        bench.handle(.examined(started.attempt))
        #expect(try bench.conclude(started).words == ["error card_failed"])
        let record = try #require(bench.records[started.job]).record
        #expect(record.state == .enqueued && record.failures == 0 && record.reason == unhealthy.reason)
    }

    @Test func aPassingFaultExcusesWhatHasJustFailed() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .signal(6))))
        #expect(bench.take(.examine(started.attempt)))
        bench.handle(.cardFailed(reason: "the card was reset"))
        bench.handle(.examined(started.attempt))
        #expect(try bench.conclude(started).words == ["error card_failed"])
    }

    /// Heat excuses nothing: a job that ended by itself was not ended for it.
    @Test(arguments: [nil, CardHold(.overheated, reason: "hot"), CardHold(.sensor, reason: "silent")] as [CardHold?])
    func whatFailsOnACardThatIsWellHasFailed(hold: CardHold?) throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(1))))
        bench.handle(.cardHeld(hold))
        // Nor is it cancelled any more, or drained.
        bench.handle(.cancelAsked(started.job, started.attempt, RequestToken(1)))
        #expect(bench.take(.examine(started.attempt)))
        bench.handle(.examined(started.attempt))
        #expect(try bench.conclude(started).words == ["error exit", "result failed"])
    }

    @Test func aSuccessIsNotExamined() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .code(0))))
        #expect(!bench.todo.contains(.examine(started.attempt)))
    }

    @Test func theFirstCauseCounts() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", timeout: .seconds(10), retries: 0)
        bench.pass(.seconds(10))
        #expect(bench.take(.terminate(started.attempt)))
        bench.handle(.cardHeld(overheated))
        #expect(try bench.end(started, .signal(15)).words == ["error timeout", "result failed"])
    }

    /// A report that an earlier life has left is told as it was meant.
    @Test func aReportOfAnOverheatedJobOutlivesItsWorker() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.cardHeld(overheated))
        bench.handle(.ended(started.attempt, ProcessEnd(exit: .signal(15))))
        let report = try #require(bench.take { if case .report(let report) = $0 { report } else { nil } })
        let next = try Bench()
        next.records = bench.records
        next.handle(.began([RecoveredAttempt(job: started.job, attempt: started.attempt, report: report)]))
        next.answer()
        #expect(try next.state("a") == .enqueued)
    }

    // MARK: requests

    @Test func anEvictedJobGoesBackWithItsReason() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a", retries: 0)
        bench.handle(.evictAsked(started.job, started.attempt, .drained, reason: "card 3 is drained", RequestToken(1)))
        #expect(bench.take(.reply(RequestToken(1), .done)))
        #expect(bench.take(.terminate(started.attempt)))
        // The leader asks with every heartbeat until the record has moved.
        bench.handle(.evictAsked(started.job, started.attempt, .drained, reason: "card 3 is drained", RequestToken(2)))
        #expect(bench.take(.reply(RequestToken(2), .done)))
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        #expect(try bench.end(started, .signal(15)).words == ["error drained"])
        let record = try #require(bench.records[started.job]).record
        #expect(record.state == .enqueued && record.lost == 1 && record.reason == "card 3 is drained")
        _ = try bench.run("b")
    }

    @Test func anEvictionDuringTheClaimKeepsTheJobFromStarting() throws {
        let bench = try Bench.serving()
        let message = try bench.dispatch("a")
        let attempt = try #require(message.attempt)
        _ = bench.deliver(message)
        bench.handle(try #require(bench.takeStoreAction()))
        bench.handle(.evictAsked(message.record.id, attempt, .cardFailed, reason: "", RequestToken(1)))
        bench.answer()
        #expect(try bench.state("a") == .enqueued)
        #expect(!bench.todo.contains { if case .start = $0 { true } else { false } })
    }

    @Test func whatIsNotHereIsNotEvicted() throws {
        let bench = try Bench.serving()
        let started = try bench.run("a")
        let other = AttemptID(from: &bench.ids)
        bench.handle(.evictAsked(started.job, other, .drained, reason: "", RequestToken(1)))
        #expect(bench.take { if case .reply(RequestToken(1), let answer) = $0 { answer.error } else { nil } } != nil)
        #expect(!bench.todo.contains(.terminate(started.attempt)))
    }

    @Test func thereIsOneProbeAtATime() throws {
        let bench = try Bench.serving()
        bench.handle(.probeAsked(RequestToken(1)))
        #expect(bench.take(.probe))
        bench.handle(.probeAsked(RequestToken(2)))
        #expect(bench.take { if case .reply(RequestToken(2), let answer) = $0 { answer.error } else { nil } } != nil)
        #expect(!bench.todo.contains(.probe))
        let answer = WorkerAnswer(ok: false, evidence: "NVML 15: GPU is lost")
        bench.handle(.probeEnded(answer))
        #expect(bench.take(.reply(RequestToken(1), answer)))
        bench.handle(.probeAsked(RequestToken(3)))
        #expect(bench.take(.probe))
    }
}
