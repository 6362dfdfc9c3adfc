import Dispatch
import JobTransport
import Testing

@Suite("The mailbox of a core") struct MailboxTests {
    /// A sender's thread.
    private final class Sender: Sendable {
        private let ended = DispatchSemaphore(value: 0)

        init(_ events: Range<Int>, to mailbox: Mailbox<Int>) {
            DispatchQueue(label: "sender").async { [self] in
                for event in events { mailbox.send(event) }
                ended.signal()
            }
        }

        /// Whether it has sent everything, within ten seconds.
        func ends() async -> Bool {
            await withCheckedContinuation { continuation in
                DispatchQueue.global().async { [self] in
                    continuation.resume(returning: ended.wait(timeout: .now() + 10) == .success)
                }
            }
        }
    }

    private func receive(_ count: Int, from mailbox: Mailbox<Int>) async -> [Int] {
        var received: [Int] = []
        while received.count < count { received += await mailbox.receive() }
        return received
    }

    @Test func everythingComesInItsOrderAndAllAtOnce() async {
        let mailbox = Mailbox<Int>()
        mailbox.send(1)
        mailbox.send(contentsOf: [2, 3])
        mailbox.sendOutcome(4)
        #expect(await mailbox.receive() == [1, 2, 3, 4])
    }

    @Test func whoSendsIntoAFullOneWaitsUntilItIsEmptied() async {
        let mailbox = Mailbox<Int>(capacity: 4)
        let sender = Sender(0..<1000, to: mailbox)
        #expect(await receive(1000, from: mailbox) == Array(0..<1000))
        #expect(await sender.ends())
    }

    @Test func outcomesAreTakenByAFullOneToo() async {
        let mailbox = Mailbox<Int>(capacity: 1)
        for event in 0..<10 { mailbox.sendOutcome(event) }
        #expect(await mailbox.receive() == Array(0..<10))
    }

    @Test func nobodyWaitsForAReceiverOnTheSameLoop() async {
        let mailbox = Mailbox<Int>(capacity: 2)
        let sender = Sender(0..<100, to: mailbox)
        mailbox.receiverRuns(onLoop: true)
        #expect(await sender.ends(), "also who waited already")
        #expect(await receive(100, from: mailbox) == Array(0..<100))
        mailbox.receiverRuns(onLoop: false)
        let next = Sender(0..<100, to: mailbox)
        let first = await mailbox.receive()
        #expect(first.count <= 2 + 1, "bounded again")
        let rest = await receive(100 - first.count, from: mailbox)
        #expect(first + rest == Array(0..<100))
        #expect(await next.ends())
    }

    @Test func aClosedOneHoldsNobodyUp() async {
        let mailbox = Mailbox<Int>(capacity: 2)
        let sender = Sender(0..<100, to: mailbox)
        let first = await mailbox.receive()
        mailbox.close()
        #expect(await sender.ends())
        let rest = await mailbox.receive()
        #expect(first + rest == Array(0..<(first.count + rest.count)), "what came before can still be received")
        #expect(await mailbox.receive().isEmpty)
    }

    @Test func aReceiverWaitsForAsManyAsItAskedFor() async {
        let mailbox = Mailbox<Int>()
        async let received = mailbox.receive(atLeast: 3)
        for event in 0..<3 { mailbox.send(event) }
        #expect(await received == [0, 1, 2])
    }
}
