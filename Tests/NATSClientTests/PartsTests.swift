import Testing
import WireJSON

@testable import NATSClient

struct PartsTests {
    @Test func times() {
        #expect(RFC3339.nanoseconds("1970-01-01T00:00:00Z") == 0)
        #expect(RFC3339.nanoseconds("2026-11-21T14:27:15.161923832Z") == 1_795_271_235_161_923_832)
        #expect(RFC3339.nanoseconds("2026-11-21T14:27:15.1Z") == 1_795_271_235_100_000_000)
        #expect(RFC3339.nanoseconds("2026-11-21T15:27:15+01:00") == 1_795_271_235_000_000_000)
        #expect(RFC3339.nanoseconds("2024-02-29T00:00:00Z") == 1_709_164_800_000_000_000)
        for bad in [
            "", "2026", "2026-11-21 14:27:15Z", "2026-13-21T14:27:15Z", "9999-01-01T00:00:00Z", "x026-11-21T14:27:15Z",
        ] {
            #expect(RFC3339.nanoseconds(bad) == nil, "\(bad)")
        }
    }

    @Test func base64() {
        #expect(Base64.decode("") == [])
        #expect(Base64.decode("eA==") == bytes("x"))
        #expect(Base64.decode("eHk=") == bytes("xy"))
        #expect(Base64.decode("eHl6") == bytes("xyz"))
        #expect(Base64.decode("/+8A") == [0xFF, 0xEF, 0])
        for bad in ["e", "eA", "eA=", "e===", "=eA=", "e!==", "eA==eA=="] {
            #expect(Base64.decode(bad) == nil, "\(bad)")
        }
    }

    @Test func ackSubjects() throws {
        let short = try #require(MessageMetadata(ackSubject: "$JS.ACK.S.C.2.30.4.1795271235160988475.7"))
        let long = try #require(MessageMetadata(ackSubject: "$JS.ACK.hub.abc.S.C.2.30.4.1795271235160988475.7.rnd"))
        #expect(short == long)
        #expect(short.stream == "S")
        #expect(short.consumer == "C")
        #expect(short.deliveryCount == 2)
        #expect(short.streamSequence == 30)
        #expect(short.consumerSequence == 4)
        #expect(short.timestamp == 1_795_271_235_160_988_475)
        #expect(short.pending == 7)
        for bad in [
            "", "$JS.ACK", "_INBOX.a.b", "$JS.ACK.S.C.x.30.4.1.7", "$JS.ACK.S.C.2.30.4.1", "$JS.ACK.a.b.c.d.e.f.g.h.i",
        ] {
            #expect(MessageMetadata(ackSubject: bad) == nil, "\(bad)")
        }
    }

    @Test func headerBlocks() {
        let block = NATSHeaders(block: bytes("NATS/1.0\r\nA: 1\r\nB:2\r\nA: three four\r\nC: \r\n\r\n"))
        #expect(block?.values("A") == ["1", "three four"])
        #expect(block?["B"] == "2")
        #expect(block?["C"] == "")
        #expect(NATSHeaders(block: bytes("nonsense")) == nil)
    }

    @Test func acknowledgements() {
        #expect(Acknowledgement.ack.bytes == bytes("+ACK"))
        #expect(Acknowledgement.nak(delay: nil).bytes == bytes("-NAK"))
        #expect(Acknowledgement.nak(delay: .milliseconds(1500)).bytes == bytes("-NAK {\"delay\":1500000000}"))
        #expect(Acknowledgement.inProgress.bytes == bytes("+WPI"))
        #expect(Acknowledgement.term.bytes == bytes("+TERM"))
    }

    @Test func configurationDifferences() {
        let asked: JSON = ["a": 1, "b": "x", "c": ["p", "q"], "d": ["e": true, "f": 2], "z": 0, "n": false, "l": []]
        let same: JSON = ["a": 1.0, "b": "x", "c": ["p", "q"], "d": ["e": true, "f": 2, "g": 3], "more": 1]
        #expect(ConfigurationDifference.between(asked: asked, actual: same) == [])
        let other: JSON = ["a": 2, "c": ["q", "p"], "d": ["e": true]]
        #expect(
            ConfigurationDifference.between(asked: asked, actual: other).map(\.description) == [
                "a: asked 1, the server has 2", "b: asked \"x\", the server has nothing",
                "c: asked [\"p\",\"q\"], the server has [\"q\",\"p\"]", "d.f: asked 2, the server has nothing",
            ]
        )
    }

    @Test func deadlinesComeInOrder() {
        var heap = DeadlineHeap()
        var generator = SystemRandomNumberGenerator()
        let deadlines = (0..<500).map { _ in UInt64.random(in: 0..<100, using: &generator) }
        for deadline in deadlines { heap.add(DeadlineHeap.Entry(deadline: deadline, number: deadline)) }
        heap.keep { $0.deadline % 3 != 0 }
        var sorted: [UInt64] = []
        while let first = heap.first {
            sorted.append(first.deadline)
            heap.removeFirst()
        }
        #expect(sorted == deadlines.filter { $0 % 3 != 0 }.sorted())
    }

    @Test(.timeLimit(.minutes(1))) func requestsEndOnce() async throws {
        let table = RequestTable(limit: 3)
        let ended = Collector<NATSError.Code>()
        let record: RequestTable.Completion = { if case .failure(let error) = $0 { ended.add(error.code) } }
        let soon = MonotonicClock.now + 20_000_000
        let later = MonotonicClock.now + 3_600_000_000_000
        let first = try table.add("test", "late", inbox: 1, deadline: later, completion: record)
        _ = try table.add("test", "soon", inbox: 1, deadline: soon, completion: record)
        let third = try table.add("test", "taken back", inbox: 1, deadline: soon, completion: record)
        let full = #expect(throws: NATSError.self) {
            try table.add("test", "full", inbox: 1, deadline: soon, completion: record)
        }
        #expect(full?.code == .tooManyRequests)
        #expect(table.withdraw(third))
        #expect(!table.withdraw(third))
        #expect(await ended.wait(count: 1))
        #expect(ended.values == [.timeout])
        // The slot is used again; the number of its former user means nothing any more.
        let fourth = try table.add("test", "again", inbox: 1, deadline: later, completion: record)
        #expect(fourth != third)
        #expect(!table.withdraw(third))
        table.failAll(.disconnected, cause: nil)
        #expect(ended.values == [.timeout, .disconnected, .disconnected])
        #expect(!table.withdraw(first))
        #expect(table.count == 0)
    }

    @Test(.timeLimit(.minutes(1))) func whoIsNotHeardIsDoubtedWithItsInboxAlone() async throws {
        let table = RequestTable(limit: 10)
        let ended = Collector<String>()
        let later = MonotonicClock.now + 3_600_000_000_000
        func add(_ name: String, inbox: UInt) throws -> UInt64 {
            try table.add("test", name, inbox: inbox, deadline: later) { answer in
                if case .failure(let error) = answer { ended.add("\(name) \(error.code)") }
            }
        }
        _ = try add("own", inbox: 1)
        let answered = try add("answered", inbox: 1)
        _ = try add("other", inbox: 2)
        table.doubt(of: 1)
        // Asked later, so it is not meant.
        _ = try add("later", inbox: 1)
        #expect(table.withdraw(answered))
        #expect(await ended.wait(count: 1))
        #expect(ended.values == ["own no responders"])
        table.refuse(of: 2)
        #expect(ended.values == ["own no responders", "other no responders"])
        table.doubt(of: 1)
        table.doubt(of: 1)
        #expect(await ended.wait(count: 3))
        #expect(ended.values.last == "later no responders")
        #expect(table.count == 0)
    }

    @Test func versions() {
        func software(_ version: String) -> ServerSoftware {
            ServerSoftware(name: "", version: version, hasJetStream: true)
        }
        #expect(software("2.9.10").isAtLeast(2, 9))
        #expect(!software("2.9.10").isAtLeast(2, 11))
        #expect(software("2.14.0-beta.1").isAtLeast(2, 11))
        #expect(software("3.0.0").isAtLeast(2, 11))
        #expect(!software("unknown").isAtLeast(2, 0))
    }
}

@Suite(.timeLimit(.minutes(2)))
struct ServerAnswerTests {
    /// A service that answers like a stream, but not quite.
    @Test(arguments: [
        ("{\"stream\":\"S\",\"seq\":3}", 3), ("{ \"stream\" : \"S\", \"seq\": 4, \"duplicate\": false }", 4),
        ("{\"seq\":5,\"stream\":\"S\",\"domain\":\"hub\"}", 5),
        ("{\"stream\":\"S\",\"seq\":6,\"batch\":\"new field\"}", 6),
        ("{\"stream\":\"\\u0053\",\"seq\":7}", 7), ("{\"stream\":\"S\",\"seq\":18446744073709551615}", UInt64.max),
    ]) func acksAreRead(text: String, sequence: UInt64) async throws {
        let outcome = try await answer(text)
        #expect(outcome == .stored(PublishAck(stream: "S", sequence: sequence, isDuplicate: false)))
    }

    @Test(arguments: ["", "+OK", "{", "{}", "[1]", "{\"stream\":\"S\"}", "{\"stream\":\"S\",\"seq\":-1}", "\u{0}"])
    func nonsenseIsUnknown(text: String) async throws {
        #expect(try await answer(text).unknownError?.code == .protocol)
    }

    @Test func errorsAreRefusalsUnlessInFlight() async throws {
        func error(_ code: Int) -> String { "{\"error\":{\"code\":400,\"err_code\":\(code),\"description\":\"d\"}}" }
        #expect(try await answer(error(10071)).refusal?.isWrongLastSequence == true)
        #expect(try await answer(error(10077)).refusal?.errorCode == 10077)
        #expect(try await answer(error(10164)).unknownError != nil)
        #expect(try await answer(error(10158)).unknownError != nil)
    }

    @Test func theServerSaysWhatItIs() async throws {
        let server = try TestServer()
        let connection = try await server.connect()
        let software = try await connection.serverSoftware(deadline: .seconds(60))
        #expect(software.name == "test-\(server.port)")
        #expect(software.isAtLeast(2, 9))
        await connection.close()
    }

    private func answer(_ text: String) async throws -> PublishOutcome {
        let server = try TestServer(jetStream: false)
        let connection = try await server.connect()
        let service = try connection.subscribe("service") { message in
            guard let reply = message.replySubject else { return }
            // Shows in the outcome if it fails.
            try? connection.publish(bytes(text), to: reply)
        }
        let outcome = await JetStream(connection, deadline: .seconds(60)).publish([1], to: "service")
        withExtendedLifetime(service) {}
        await connection.close()
        return outcome
    }
}
