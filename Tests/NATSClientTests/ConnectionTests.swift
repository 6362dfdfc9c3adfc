import Synchronization
import Testing

@testable import NATSClient

/// The limit on every test: far above what any needs, so that a hang fails.
@Suite(.timeLimit(.minutes(2)))
struct ConnectionTests {
    private func record(_ connection: NATSConnection) -> Collector<ConnectionEvent> {
        let events = Collector<ConnectionEvent>()
        _ = connection.addObserver { events.add($0) }
        return events
    }

    @Test func connectsToAServerThatComesLater() async throws {
        let server = try TestServer(running: false)
        let connection = try server.makeConnection()
        let events = record(connection)
        try connection.start()
        #expect(throws: NATSError.self) { try connection.publish([1], to: "a.b") }
        let early = await #expect(throws: NATSError.self) {
            try await connection.waitUntilConnected(deadline: .milliseconds(50))
        }
        #expect(early?.code == .timeout)
        try server.start()
        try await connection.waitUntilConnected(deadline: .seconds(30))
        #expect(await events.wait(count: 1))
        guard case .connected(let info)? = events.values.first else { return #expect(Bool(false), "\(events.values)") }
        #expect(!info.serverID.isEmpty)
        #expect(info.maxPayload == 1 << 20)
        #expect(connection.epoch == 1)
        await connection.close()
    }

    @Test func subscriptionsAndRequestsWorkAfterARestart() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let events = record(connection)
        let received = Collector<String>()
        let subscription = try connection.subscribe("words.*") {
            received.add(String(decoding: $0.payload, as: UTF8.self))
        }
        let echo = try connection.subscribe("echo") { message in
            guard let reply = message.replySubject else { return }
            try? connection.publish(message.payload, to: reply, headers: message.headers)
        }
        try connection.publish(bytes("one"), to: "words.a")
        #expect(await received.wait(count: 1))
        server.kill()
        #expect(await events.wait { $0.contains { if case .disconnected = $0 { true } else { false } } })
        #expect(!connection.isConnected)
        try server.start()
        #expect(await events.wait { $0.contains { if case .reconnected = $0 { true } else { false } } })
        #expect(connection.epoch == 2)
        try connection.publish(bytes("two"), to: "words.b")
        #expect(await received.wait(count: 2))
        #expect(received.values == ["one", "two"])
        let answer = try await connection.request(
            bytes("ping"),
            to: "echo",
            headers: ["K": "v 1", "L": "2"],
            deadline: .seconds(10)
        )
        #expect(answer.payload == bytes("ping"))
        #expect(answer.headers["K"] == "v 1")
        #expect(answer.headers["L"] == "2")
        withExtendedLifetime((subscription, echo)) {}
        await connection.close()
    }

    @Test func aRequestWithoutAnswerEndsAtItsDeadline() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let silent = try connection.subscribe("silent") { _ in }
        let late = await #expect(throws: NATSError.self) {
            try await connection.request([], to: "silent", deadline: .milliseconds(100))
        }
        #expect(late?.code == .timeout)
        #expect(late?.subject == "silent")
        let nobody = await #expect(throws: NATSError.self) {
            try await connection.request([], to: "nobody.listens", deadline: .seconds(10))
        }
        #expect(nobody?.code == .noResponders)
        #expect(connection.requests.count == 0)
        withExtendedLifetime(silent) {}
        await connection.close()
    }

    @Test func nothingPublishedWhileDisconnectedArrivesLater() async throws {
        let server = try TestServer()
        let sender = try await server.connect()
        let events = record(sender)
        server.kill()
        // From the moment of the kill on, the link may be noticed as dead or not yet: publish through all of it.
        var refused = 0
        while true {
            do {
                try sender.publish(bytes("late"), to: "log.x")
            } catch {
                refused += 1
                if !sender.isConnected && refused > 1000 { break }
            }
        }
        #expect(await events.wait { $0.contains { if case .disconnected = $0 { true } else { false } } })
        let throughRequest = await #expect(throws: NATSError.self) {
            try await sender.request(bytes("late"), to: "log.x", deadline: .seconds(5))
        }
        #expect(throughRequest?.code == .notConnected)
        // A listener that is there before the sender is back.
        let received = Collector<String>()
        let listener = try server.makeConnection { $0.reconnectWait = .milliseconds(1) }
        let subscription = try listener.subscribe("log.x") { received.add(String(decoding: $0.payload, as: UTF8.self)) }
        let own = try sender.subscribe("log.x") { received.add(String(decoding: $0.payload, as: UTF8.self)) }
        try listener.start()
        try server.start()
        try await listener.waitUntilConnected(deadline: .seconds(30))
        try await sender.waitUntilConnected(deadline: .seconds(30))
        try await listener.flush(deadline: .seconds(10))
        try sender.publish(bytes("now"), to: "log.x")
        #expect(await received.wait(count: 2))
        #expect(received.values == ["now", "now"])
        withExtendedLifetime((subscription, own)) {}
        await sender.close()
        await listener.close()
    }

    @Test func requestsInFlightEndWhenTheConnectionDrops() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let arrived = Collector<Void>()
        let silent = try connection.subscribe("silent") { _ in arrived.add(()) }
        let answer = Task { try await connection.request([], to: "silent", deadline: .seconds(100)) }
        #expect(await arrived.wait(count: 1))
        server.kill()
        let error = await #expect(throws: NATSError.self) { try await answer.value }
        #expect(error?.code == .disconnected)
        withExtendedLifetime(silent) {}
        await connection.close()
    }

    @Test func closingEndsEverything() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let events = record(connection)
        let arrived = Collector<Void>()
        let silent = try connection.subscribe("silent") { _ in arrived.add(()) }
        let answer = Task { try await connection.request([], to: "silent", deadline: .seconds(100)) }
        #expect(await arrived.wait(count: 1))
        async let first: Void = connection.close()
        async let second: Void = connection.close()
        _ = await (first, second)
        let error = await #expect(throws: NATSError.self) { try await answer.value }
        #expect(error?.code == .closed)
        let closedEvents = events.values.filter { if case .closed = $0 { true } else { false } }
        #expect(closedEvents.count == 1)
        #expect(throws: NATSError.self) { try connection.publish([], to: "a") }
        #expect(throws: NATSError.self) { try connection.start() }
        silent.cancel()
        silent.cancel()
    }

    @Test(arguments: ["", " ", "a b", "a..b", ".a", "a.", "a\r\nPUB x 0", "a.*", ">", "a\u{0}b", "a\tb"])
    func badSubjectsAreRefused(subject: String) async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let error = #expect(throws: NATSError.self) { try connection.publish([], to: subject) }
        #expect(error?.code == .badSubject)
        let request = await #expect(throws: NATSError.self) {
            try await connection.request([], to: subject, deadline: .seconds(1))
        }
        #expect(request?.code == .badSubject)
        await connection.close()
    }

    @Test func badHeadersAndLargePayloadsAreRefused() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        for headers: NATSHeaders in [
            ["": "x"], ["a b": "x"], ["a:b": "x"], ["a": "x\r\ny"], ["a": "x\u{0}"], ["a": ""],
        ] {
            let error = #expect(throws: NATSError.self) { try connection.publish([], to: "a", headers: headers) }
            #expect(error?.code == .badHeader)
        }
        let error = #expect(throws: NATSError.self) {
            try connection.publish([UInt8](repeating: 0, count: (1 << 20) + 1), to: "a")
        }
        #expect(error?.code == .tooLarge)
        #expect(connection.isConnected)
        await connection.close()
    }

    @Test func headersKeepSeveralValues() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let received = Collector<NATSMessage>()
        let subscription = try connection.subscribe("h") { received.add($0) }
        var headers: NATSHeaders = ["A": "1"]
        headers.add("B", "x")
        headers.add("A", "2")
        try connection.publish(bytes("p"), to: "h", replySubject: "r.s", headers: headers)
        #expect(await received.wait(count: 1))
        let message = try #require(received.values.first)
        #expect(message.headers.values("A") == ["1", "2"])
        #expect(message.headers["B"] == "x")
        #expect(message.replySubject == "r.s")
        #expect(message.status == nil)
        withExtendedLifetime(subscription) {}
        await connection.close()
    }

    @Test func badOptionsAreNamed() throws {
        var options = NATSConnectionOptions(urls: ["nats://127.0.0.1:1"], name: "x")
        options.credentialsFile = "/nonexistent/file.creds"
        let missing = #expect(throws: NATSError.self) { try NATSConnection(options: options) }
        #expect(missing?.description.contains("/nonexistent/file.creds") == true)
        #expect(throws: NATSError.self) { try NATSConnection(options: NATSConnectionOptions(urls: [], name: "x")) }
        for url in [
            "nats://host:notaport", "nats://", "http://host", "nats://host:70000", "nats://ho st", "nats://u:p@", "",
        ] {
            let bad = #expect(throws: NATSError.self, "\(url)") {
                try NATSConnection(options: NATSConnectionOptions(urls: [url], name: "x"))
            }
            #expect(bad?.code == .badOption)
        }
        for url in [
            "host", "host:4222", "nats://u:p@host:1", "tls://[::1]:4222", "nats://token@127.0.0.1", "nats://h:1/",
        ] {
            _ = try NATSConnection(options: NATSConnectionOptions(urls: [url], name: "x"))
        }
    }
}
