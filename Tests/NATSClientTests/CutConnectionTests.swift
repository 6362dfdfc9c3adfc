import Testing

@testable import NATSClient

/// Connections that end in the middle of what the server is saying.
@Suite(.timeLimit(.minutes(3)))
struct CutConnectionTests {
    /// Wherever a message is cut off, the next connection begins anew: nothing of the old one is taken for the new one's.
    @Test func aMessageThatWasCutOffIsForgotten() async throws {
        let server = try TestServer(jetStream: false)
        let relay = try CuttingRelay(to: server.port)
        let connection = try await server.connect {
            $0.urls = ["nats://127.0.0.1:\(relay.port)"]
            $0.reconnectWait = .milliseconds(10)
        }
        let epochs = Collector<Void>()
        _ = connection.addObserver { if case .reconnected = $0 { epochs.add(()) } }
        let whole = bytes("a message of some length")
        let received = Collector<[UInt8]>()
        let subscription = try connection.subscribe("talk") { received.add($0.payload) }
        try await connection.flush(deadline: .seconds(60))
        // What the server says: `MSG talk 2 24`, an end of line, the payload, an end of line.
        let length = "MSG talk 2 24\r\n".count + whole.count + 2
        for cut in 1..<length {
            relay.cut(after: cut)
            try connection.publish(whole, to: "talk")
            #expect(await epochs.wait(count: cut))
            let before = received.values.count
            try connection.publish(whole, to: "talk")
            #expect(await received.wait(count: before + 1))
        }
        #expect(received.values.allSatisfy { $0 == whole })
        subscription.cancel()
        await connection.close()
    }

    @Test func requestsUnderWayEndAndTheNextAreAnswered() async throws {
        let server = try TestServer()
        let relay = try CuttingRelay(to: server.port)
        let connection = try await server.connect {
            $0.urls = ["nats://127.0.0.1:\(relay.port)"]
            $0.reconnectWait = .milliseconds(10)
        }
        let jetStream = JetStream(connection, deadline: .seconds(60))
        try await jetStream.waitUntilReady()
        for cut in stride(from: 1, through: 120, by: 7) {
            relay.cut(after: cut)
            do throws(JetStreamError) {
                _ = try await jetStream.accountInfo()
            } catch .unknown(let error) {
                #expect(error.code == .disconnected)
            }
            try await connection.waitUntilConnected(deadline: .seconds(60))
            _ = try await jetStream.accountInfo()
        }
        await connection.close()
    }
}

struct ServerListTests {
    @Test func theServerThatWasLostIsTriedLast() {
        var list = ServerList(["nats://user:word@a:4222", "nats://b:4222", "nats://c:4222"])
        list.noteConnected(to: "nats://b:4222")
        for _ in 0..<20 {
            let order = list.inOrder()
            #expect(order.last == "nats://b:4222")
            #expect(Set(order).count == 3)
        }
    }

    @Test func discoveredServersAreReachedAsTheConfiguredOnesAre() {
        var list = ServerList(["tls://user:word@a:4222"])
        #expect(list.inOrder() == ["tls://user:word@a:4222"])
        list.discover(["nats://a:4222", "nats://b:4223", "nats://[::1]:4224"])
        #expect(list.count == 3)
        #expect(Set(list.inOrder()) == Set(["a:4222", "b:4223", "[::1]:4224"].map { "tls://user:word@" + $0 }))
        // One that does not say takes nothing away.
        list.discover([])
        #expect(list.count == 3)
        list.discover(["nats://b:4223"])
        #expect(list.count == 2)
    }

    @Test(arguments: [
        ("nats://h:1", "h:1"), ("h:1", "h:1"), ("tls://u:p@h:1/", "h:1"), ("nats://token@[::1]:2", "[::1]:2"),
        ("h", "h"),
    ]) func places(url: String, place: String) { #expect(ServerURL.place(of: url) == place) }
}
