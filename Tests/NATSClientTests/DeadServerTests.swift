import Testing

@testable import NATSClient

/// Servers that take nothing, or answer nothing, while their connections stand.
@Suite(.timeLimit(.minutes(3)))
struct DeadServerTests {
    private func observe(_ connection: NATSConnection) -> Collector<ConnectionEvent> {
        let events = Collector<ConnectionEvent>()
        _ = connection.addObserver { events.add($0) }
        return events
    }

    private static func isLost(_ event: ConnectionEvent) -> Bool {
        if case .disconnected = event { true } else { false }
    }

    @Test func whatTheServerDoesNotTakeIsLimited() async throws {
        let server = try TestServer(jetStream: false)
        let connection = try await server.connect { $0.writeDeadline = .seconds(60) }
        server.freeze()
        let payload = [UInt8](repeating: 0, count: 1 << 20)
        let refusal = #expect(throws: NATSError.self) {
            for _ in 0..<1000 { try connection.publish(payload, to: "x") }
        }
        #expect(refusal?.code == .congested)
        server.thaw()
        try await connection.flush(deadline: .seconds(60))
        try connection.publish(payload, to: "x")
        await connection.close()
    }

    @Test func aServerThatTakesNothingIsGivenUp() async throws {
        let server = try TestServer(jetStream: false)
        let connection = try await server.connect {
            $0.writeDeadline = .milliseconds(200)
            $0.pingInterval = .seconds(3600)
        }
        let events = observe(connection)
        server.freeze()
        let payload = [UInt8](repeating: 0, count: 1 << 20)
        #expect(throws: NATSError.self) { for _ in 0..<1000 { try connection.publish(payload, to: "x") } }
        #expect(await events.wait { $0.contains(where: Self.isLost) })
        server.thaw()
        try await connection.waitUntilConnected(deadline: .seconds(60))
        try await connection.flush(deadline: .seconds(60))
        await connection.close()
    }

    @Test func aServerThatAnswersNothingIsGivenUp() async throws {
        let server = try TestServer(jetStream: false)
        let connection = try await server.connect { $0.pingInterval = .milliseconds(100) }
        let events = observe(connection)
        server.freeze()
        #expect(await events.wait { $0.contains(where: Self.isLost) })
        server.thaw()
        try await connection.waitUntilConnected(deadline: .seconds(60))
        await connection.close()
    }

    /// Of requests whose answers share a subscription, the one that nobody takes is told, and the answered ones are not
    /// touched.
    @Test func whoAsksWhereNobodyListensIsToldAndNobodyElse() async throws {
        let server = try TestServer(jetStream: false)
        let connection = try await server.connect()
        let service = try connection.subscribe("echo") { message in
            guard let reply = message.replySubject else { return }
            // Shows in the answers if it fails.
            try? connection.publish(message.payload, to: reply)
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number: UInt8 in 0..<100 {
                group.addTask {
                    let isHeard = number % 10 != 0
                    do throws(NATSError) {
                        let subject = isHeard ? "echo" : "void"
                        let answer = try await connection.ask([number], to: subject, deadline: .seconds(60))
                        #expect(isHeard && answer.payload == [number])
                    } catch {
                        #expect(!isHeard && error.code == .noResponders, "\(error)")
                    }
                }
            }
            try await group.waitForAll()
        }
        withExtendedLifetime(service) {}
        await connection.close()
    }
}
