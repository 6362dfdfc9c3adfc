import Testing

@testable import NATSClient

/// Connections, subscriptions and consumers end in every order, with messages and requests under way, and everything
/// that they were given is let go of. Run under AddressSanitizer, ThreadSanitizer or valgrind it also shows touches of
/// freed memory.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct EndingsTests {
    private enum Ending: CaseIterable {
        case cancelThenClose, closeThenCancel, dropAll, closeWhileReceiving, killThenClose, dropWithoutClose
    }

    /// What one round makes and then lets go of.
    private struct Round {
        let connection: NATSConnection
        let subscriptions: [NATSSubscription]
        let pull: PullConsumer
        let ordered: OrderedConsumer
    }

    /// Says that it is gone. One is captured by each closure that a round hands over.
    private final class Canary: Sendable {
        private let released: Collector<Void>
        init(_ released: Collector<Void>) { self.released = released }
        deinit { released.add(()) }
        func sing() {}
    }

    private static let closuresPerRound = 8

    private func makeRound(_ server: TestServer, released: Collector<Void>) async throws -> Round {
        func canary() -> Canary { Canary(released) }
        let connection = try await server.connect()
        let observed = canary()
        _ = connection.addObserver { _ in observed.sing() }
        let jetStream = JetStream(connection, deadline: .seconds(60))
        try await jetStream.waitUntilReady()
        _ = try await jetStream.createStream(["name": "LOG", "subjects": ["log.>"], "storage": "memory"])
        _ = try await jetStream.createConsumer(stream: "LOG", ["durable_name": "D", "ack_policy": "explicit"])
        let subscriptions = try (0..<5).map { number in
            let received = canary()
            return try connection.subscribe(number == 0 ? "log.>" : "core.\(number)") { _ in received.sing() }
        }
        let pulled = canary()
        let pull = try PullConsumer(jetStream, stream: "LOG", consumer: "D", onEvent: { _ in }) { message in
            pulled.sing()
            // Refused when the connection ends first.
            try? message.ack()
        }
        pull.request(1000)
        let replayed = canary()
        let ordered = try OrderedConsumer(jetStream, stream: "LOG") { _ in replayed.sing() }
        for number in 0..<200 {
            jetStream.publish([UInt8(number)], to: "log.x", headers: ["A": "b"]) { _ in }
            try connection.publish([UInt8(number)], to: "core.\(number % 5)")
        }
        return Round(connection: connection, subscriptions: subscriptions, pull: pull, ordered: ordered)
    }

    @Test(arguments: 0..<3) func inAnyOrder(repetition: Int) async throws {
        let released = Collector<Void>()
        let server = try TestServer()
        for ending in Ending.allCases {
            var round: Round? = try await makeRound(server, released: released)
            switch ending {
            case .cancelThenClose:
                round?.pull.close()
                round?.ordered.close()
                for subscription in round?.subscriptions ?? [] { subscription.cancel() }
                await round?.connection.close()
            case .closeThenCancel:
                await round?.connection.close()
                for subscription in round?.subscriptions ?? [] { subscription.cancel() }
                round?.ordered.close()
                round?.pull.close()
            case .dropAll:
                let connection = round?.connection
                round = nil
                await connection?.close()
            case .closeWhileReceiving:
                let connection = round?.connection
                async let first: Void? = connection?.close()
                for subscription in round?.subscriptions ?? [] { subscription.cancel() }
                async let second: Void? = connection?.close()
                round = nil
                _ = await (first, second)
            case .killThenClose:
                server.kill()
                await round?.connection.close()
                try server.start()
            case .dropWithoutClose: break
            }
            round = nil
        }
        let all = Self.closuresPerRound * Ending.allCases.count
        #expect(await released.wait(count: all), "only \(released.values.count) of \(all) closures are gone")
    }
}
