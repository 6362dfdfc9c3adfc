import Testing

@testable import NATSClient

private let second: UInt64 = 1_000_000_000

struct PullStateTests {
    private func state(capacity: Int = 10) -> PullState {
        PullState(PullState.Options(capacity: capacity, expires: 30 * second, heartbeat: 5 * second))
    }

    @Test func asksForNoMoreThanCapacityAndDemand() {
        var state = state()
        #expect(state.handle(.connected, at: 0) == [])
        #expect(state.handle(.demanded(3), at: 0) == [.pull(request: 1, batch: 3)])
        #expect(state.handle(.demanded(1), at: 0) == [])
        #expect(state.handle(.demanded(20), at: 0) == [.pull(request: 2, batch: 7)])
        #expect(state.outstanding == 10)
        for _ in 0..<4 { #expect(state.handle(.delivered, at: 0) == []) }
        #expect(state.handle(.delivered, at: 0) == [.pull(request: 3, batch: 5)])
        #expect(state.demand == 19)
    }

    @Test func nothingIsAskedForWithoutAConnection() {
        var state = state()
        #expect(state.handle(.demanded(5), at: 0) == [])
        #expect(state.wakeTime == nil)
        #expect(state.handle(.connected, at: 0) == [.pull(request: 1, batch: 5)])
        #expect(state.handle(.disconnected, at: 1) == [])
        #expect(state.handle(.connected, at: 2) == [.pull(request: 2, batch: 5)])
    }

    @Test func anExpiredRequestIsSentAgainWithWhatIsLeft() {
        var state = state()
        _ = state.handle(.connected, at: 0)
        _ = state.handle(.demanded(5), at: 0)
        _ = state.handle(.delivered, at: 1)
        let ended = PullState.Event.ended(request: 1, status: 408, description: "Request Timeout", undelivered: 4)
        #expect(state.handle(ended, at: 30 * second) == [.pull(request: 2, batch: 4)])
    }

    @Test func messagesTakenFromALaterRequestDoNotSkewTheCount() {
        var state = state()
        _ = state.handle(.connected, at: 0)
        _ = state.handle(.demanded(4), at: 0)
        _ = state.handle(.demanded(6), at: 0)
        _ = state.handle(.delivered, at: 0)
        _ = state.handle(.demanded(6), at: 0)
        let before = state.outstanding
        // The server served a later request: the first one ends with more left than was counted.
        _ = state.handle(.ended(request: 1, status: 408, description: "", undelivered: 4), at: 1)
        #expect(state.outstanding >= before - 4)
        #expect(state.outstanding <= 10)
    }

    @Test func silenceMeansANewRequestAndALookAtTheConsumer() {
        var state = state()
        _ = state.handle(.connected, at: 0)
        _ = state.handle(.demanded(5), at: 0)
        #expect(state.wakeTime == 12_500_000_000)
        #expect(state.handle(.heartbeat, at: 5 * second) == [])
        #expect(state.handle(.timePassed, at: 13 * second) == [])
        #expect(
            state.handle(.timePassed, at: 18 * second)
                == [.report(.missedHeartbeats), .checkConsumer, .pull(request: 2, batch: 5)]
        )
        #expect(state.handle(.consumerChecked(exists: false), at: 18 * second) == [.report(.consumerMissing)])
    }

    @Test func aMissingConsumerIsReportedAndTriedWithGrowingPauses() {
        var state = state()
        _ = state.handle(.connected, at: 0)
        #expect(state.handle(.demanded(1), at: 0) == [.pull(request: 1, batch: 1)])
        var now: UInt64 = 0
        var pauses: [UInt64] = []
        for request in 1...8 {
            let gone = PullState.Event.ended(
                request: UInt64(request),
                status: 503,
                description: "",
                undelivered: nil
            )
            #expect(state.handle(gone, at: now) == [.report(.consumerMissing)])
            guard let wake = state.wakeTime else { return #expect(Bool(false), "no retry planned") }
            pauses.append((wake - now) / 100_000_000)
            now = wake
            #expect(state.handle(.timePassed, at: now) == [.pull(request: UInt64(request + 1), batch: 1)])
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 64, 64])
        #expect(
            state.handle(.ended(request: 9, status: 409, description: "Consumer Deleted", undelivered: nil), at: now)
                == [.report(.consumerMissing)]
        )
        #expect(state.handle(.consumerMade, at: now) == [.pull(request: 10, batch: 1)])
    }

    @Test func refusalsAreReported() {
        var state = state()
        _ = state.handle(.connected, at: 0)
        _ = state.handle(.demanded(1), at: 0)
        let refused = PullState.Event.ended(
            request: 1,
            status: 409,
            description: "Exceeded MaxRequestBatch of 1",
            undelivered: nil
        )
        #expect(
            state.handle(refused, at: 0)
                == [.report(.refused(status: 409, description: "Exceeded MaxRequestBatch of 1"))]
        )
        #expect(
            state.handle(.ended(request: 7, status: 409, description: "Leadership Change", undelivered: nil), at: 0)
                == []
        )
        #expect(state.wakeTime != nil)
    }
}

struct OrderedStateTests {
    private func running(_ policy: DeliverPolicy = .lastPerSubject) -> OrderedState {
        var state = OrderedState(policy: policy, heartbeat: 5 * second)
        #expect(state.handle(.connected, at: 0) == [.create(generation: 1, policy, knownSequence: nil)])
        #expect(state.handle(.created(generation: 1, start: 0, pending: 2), at: 0) == [])
        return state
    }

    @Test func theFirstEndIsNotASnapshot() {
        var state = running()
        #expect(
            state.handle(.message(generation: 1, consumerSequence: 1, streamSequence: 4, pending: 1), at: 0) == [
                .deliver
            ]
        )
        #expect(
            state.handle(.message(generation: 1, consumerSequence: 2, streamSequence: 7, pending: 0), at: 0)
                == [.deliver, .sample(generation: 1)]
        )
        #expect(state.handle(.sampled(generation: 1, lastSequence: 9), at: 0) == [])
        #expect(
            state.handle(.message(generation: 1, consumerSequence: 3, streamSequence: 8, pending: 0), at: 0) == [
                .deliver
            ]
        )
        #expect(
            state.handle(.message(generation: 1, consumerSequence: 4, streamSequence: 9, pending: 0), at: 0)
                == [.deliver, .reportCaughtUp(9)]
        )
    }

    @Test func aHeartbeatLooksAgainForADeletedMessage() {
        var state = running()
        #expect(state.handle(.heartbeat(generation: 1, lastConsumerSequence: 0), at: 1) == [.sample(generation: 1)])
        #expect(state.handle(.sampled(generation: 1, lastSequence: 9), at: 1) == [])
        #expect(state.handle(.heartbeat(generation: 1, lastConsumerSequence: 0), at: 2) == [.sample(generation: 1)])
        #expect(state.handle(.sampled(generation: 1, lastSequence: 0), at: 2) == [.reportCaughtUp(0)])
    }

    @Test func aMessageSentTwiceIsHandedOverOnce() {
        var state = running()
        let first = state.handle(.message(generation: 1, consumerSequence: 1, streamSequence: 4, pending: 5), at: 0)
        let second = state.handle(.message(generation: 1, consumerSequence: 2, streamSequence: 4, pending: 4), at: 0)
        let third = state.handle(.message(generation: 1, consumerSequence: 3, streamSequence: 5, pending: 3), at: 0)
        #expect([first, second, third] == [[.deliver], [], [.deliver]])
    }

    @Test func gapsRestartBehindTheLastMessage() {
        var state = running()
        _ = state.handle(.message(generation: 1, consumerSequence: 1, streamSequence: 4, pending: 5), at: 0)
        #expect(
            state.handle(.message(generation: 1, consumerSequence: 3, streamSequence: 6, pending: 5), at: 0)
                == [.create(generation: 2, .byStartSequence(5), knownSequence: 4)]
        )
        // What still comes from the old consumer is not for the owner.
        #expect(state.handle(.message(generation: 1, consumerSequence: 4, streamSequence: 7, pending: 4), at: 0) == [])
        #expect(
            state.handle(.message(generation: 2, consumerSequence: 1, streamSequence: 5, pending: 4), at: 0)
                == [.reportRecreated(.gap), .deliver]
        )
        #expect(
            state.handle(.heartbeat(generation: 2, lastConsumerSequence: 2), at: 0)
                == [.create(generation: 3, .byStartSequence(6), knownSequence: 5)]
        )
    }

    @Test func silenceAndLossOfTheConnectionRestart() {
        var state = running()
        #expect(state.wakeTime == 12_500_000_000)
        #expect(
            state.handle(.timePassed, at: 13 * second) == [.create(generation: 2, .lastPerSubject, knownSequence: nil)]
        )
        #expect(state.handle(.createFailed(generation: 2), at: 13 * second) == [])
        #expect(state.wakeTime == 13_250_000_000)
        #expect(state.handle(.disconnected, at: 13 * second) == [])
        #expect(state.wakeTime == nil)
        #expect(
            state.handle(.connected, at: 14 * second) == [.create(generation: 4, .lastPerSubject, knownSequence: nil)]
        )
        #expect(
            state.handle(.created(generation: 4, start: 0, pending: 1), at: 14 * second) == [
                .reportRecreated(.reconnected)
            ]
        )
    }

    @Test func aStreamThatLostItsEndStartsOver() {
        var state = running(.all)
        _ = state.handle(.message(generation: 1, consumerSequence: 1, streamSequence: 4, pending: 0), at: 0)
        _ = state.handle(.disconnected, at: 1)
        #expect(state.handle(.connected, at: 2) == [.create(generation: 3, .byStartSequence(5), knownSequence: 4)])
        #expect(state.handle(.rolledBack(generation: 3), at: 3) == [.create(generation: 4, .all, knownSequence: nil)])
        // Another loss in between: the owner still learns that it starts over.
        _ = state.handle(.disconnected, at: 4)
        _ = state.handle(.connected, at: 5)
        #expect(
            state.handle(.created(generation: 6, start: 0, pending: 3), at: 6) == [.reportRecreated(.streamRolledBack)]
        )
    }
}
