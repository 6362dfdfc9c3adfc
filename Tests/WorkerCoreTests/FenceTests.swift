import JobModel
import Testing

@testable import WorkerCore

/// A worker that is cut off ends its fenced jobs in time, and starts none.
struct FenceTests {
    private static let limit = Duration.seconds(15)
    private static let grace = WorkerPolicy().grace
    private static let window = Fence(limit).window(grace: grace)

    /// A worker that was answered just now.
    private func answeredBench() throws -> Bench {
        let bench = try Bench.serving()
        bench.handle(.heartbeatAnswered(sentAt: bench.now))
        return bench
    }

    private func fence(_ id: AttemptID, sent: Timestamp) -> WorkerAction {
        .fence(id, until: sent + Self.window, grace: Fence(Self.limit).grace(atMost: Self.grace))
    }

    @Test func theWatchdogIsOrderedBeforeTheStart() throws {
        let bench = try answeredBench()
        let sent = bench.now
        let message = try bench.dispatch("a", fence: Self.limit)
        _ = bench.deliver(message)
        bench.answer()
        let attempt = try #require(message.attempt)
        let order = try #require(bench.todo.firstIndex(of: fence(attempt, sent: sent)))
        let start = try #require(bench.todo.firstIndex { if case .start = $0 { true } else { false } })
        #expect(order < start)
    }

    @Test func withoutAnAnswerNothingFencedIsClaimed() throws {
        let bench = try Bench.serving()
        let token = bench.deliver(try bench.dispatch("a", fence: Self.limit))
        bench.answer()
        #expect(bench.take(.nak(token, delay: .seconds(1))))
        #expect(try bench.state("a") == .scheduled)
        // Others run.
        _ = try bench.run("b")
    }

    @Test func aClaimThatIsAnsweredTooLateStartsNothing() throws {
        let bench = try answeredBench()
        _ = bench.deliver(try bench.dispatch("a", fence: Self.limit))
        bench.handle(try #require(bench.takeStoreAction()))
        let written = try #require(bench.takeStoreAction())
        // This process was stopped in between.
        bench.now = bench.now + Self.window
        bench.handle(written)
        #expect(!bench.todo.contains { if case .start = $0 { true } else { false } })
        bench.answer()
        #expect(try bench.state("a") == .enqueued)
        #expect(bench.records[try bench.job("a")]?.record.lost == 1)
    }

    @Test func unansweredItIsEndedAtItsTimeAndGivenBackForNoRetry() throws {
        let bench = try answeredBench()
        let started = try bench.run("a", fence: Self.limit)
        bench.pass(Self.window - .nanoseconds(1))
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        bench.pass(.nanoseconds(1))
        #expect(bench.take(.terminate(started.attempt)))
        bench.pass(Fence(Self.limit).grace(atMost: Self.grace))
        #expect(bench.take(.kill(started.attempt)))
        #expect(try bench.end(started, .signal(9)).words == ["error fenced"])
        #expect(try bench.state("a") == .enqueued)
        #expect(bench.records[started.job]?.record.lost == 1)
    }

    @Test func anAnswerExtendsItFromWhenItsHeartbeatWasSent() throws {
        let bench = try answeredBench()
        let started = try bench.run("a", fence: Self.limit)
        bench.pass(.seconds(5))
        let sent = bench.now
        bench.pass(.seconds(3))
        bench.todo = []
        bench.handle(.heartbeatAnswered(sentAt: sent))
        #expect(bench.take(fence(started.attempt, sent: sent)))
        bench.pass(Self.window - .seconds(3) - .nanoseconds(1))
        #expect(!bench.todo.contains(.terminate(started.attempt)))
        bench.pass(.nanoseconds(1))
        #expect(bench.take(.terminate(started.attempt)))
    }

    @Test func anOlderAnswerShortensNothingAndALateOneExtendsNothing() throws {
        let bench = try answeredBench()
        let first = bench.now
        let started = try bench.run("a", fence: Self.limit)
        bench.pass(.seconds(2))
        let second = bench.now
        bench.handle(.heartbeatAnswered(sentAt: second))
        bench.todo = []
        bench.handle(.heartbeatAnswered(sentAt: first))
        #expect(bench.todo.isEmpty)
        // The answer to one that was sent in time comes when that time is over.
        bench.now = second + Self.window
        bench.handle(.heartbeatAnswered(sentAt: second + .seconds(1)))
        #expect(bench.take(.terminate(started.attempt)))
        #expect(!bench.todo.contains(fence(started.attempt, sent: second + .seconds(1))))
        bench.pass(.seconds(1))
        bench.handle(.heartbeatAnswered(sentAt: bench.now))
        #expect(!bench.todo.contains(fence(started.attempt, sent: bench.now)))
    }

    @Test func whatItsWatchdogEndedFirstIsGivenBackToo() throws {
        let bench = try answeredBench()
        let started = try bench.run("a", fence: Self.limit)
        // Stopped for a minute; the end of the process is the first thing that is seen.
        bench.now = bench.now + .seconds(60)
        #expect(try bench.end(started, .signal(15)).words == ["error fenced"])
        #expect(try bench.state("a") == .enqueued)
    }

    @Test func itBeatsOftenWhileSomethingFencedRuns() throws {
        let bench = try answeredBench()
        let started = try bench.run("a", fence: Self.limit)
        #expect(bench.take(.heartbeat))
        let interval = Fence(Self.limit).interval(grace: Self.grace)
        for _ in 0..<20 {
            bench.pass(interval - .nanoseconds(1))
            #expect(!bench.todo.contains(.heartbeat))
            bench.pass(.nanoseconds(1))
            #expect(bench.take(.heartbeat))
            bench.handle(.heartbeatAnswered(sentAt: bench.now))
        }
        _ = try bench.end(started, .code(0))
        bench.pass(.seconds(60))
        #expect(!bench.todo.contains(.heartbeat))
    }

    @Test func theRunningAttemptOfAnotherHostIsLeftToTheLeader() throws {
        let bench = try answeredBench()
        let message = try bench.dispatch("a", fence: Self.limit, owner: bench.otherLife)
        try bench.move(message.record.id, .claim)
        let token = bench.deliver(message)
        bench.answer()
        #expect(bench.take(.ack(token)))
        #expect(try bench.state("a") == .running)
    }
}
