import Testing

@testable import NATSClient

@Suite(.timeLimit(.minutes(2)))
struct KeyValueTests {
    @Test func valuesAreSetReadAndDeleted() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let bucket = try KeyValue(jetStream, bucket: "config")
        try await bucket.createOrCheck()
        try await bucket.createOrCheck()
        #expect(try await bucket.get("a.b") == nil)
        let first = try await bucket.create("a.b", bytes("1"))
        let taken = await #expect(throws: JetStreamError.self) { try await bucket.create("a.b", bytes("2")) }
        #expect(taken?.apiError?.isWrongLastSequence == true)
        let second = try await bucket.update("a.b", bytes("2"), revision: first)
        let stale = await #expect(throws: JetStreamError.self) {
            try await bucket.update("a.b", bytes("3"), revision: first)
        }
        #expect(stale?.apiError?.isWrongLastSequence == true)
        let entry = try #require(try await bucket.get("a.b"))
        #expect(entry.key == "a.b")
        #expect(entry.value == bytes("2"))
        #expect(entry.revision == second)
        try await bucket.delete("a.b")
        #expect(try await bucket.get("a.b") == nil)
        #expect(try await bucket.create("a.b", bytes("4")) > second)
        #expect(try await bucket.put("a.b", bytes("5")) > second)
        await #expect(throws: JetStreamError.self) { try await bucket.put("a b", []) }
        #expect(throws: NATSError.self) { try KeyValue(jetStream, bucket: "a.b") }
        await jetStream.connection.close()
    }

    @Test func aWatchTellsWhatIsThereAndWhatChanges() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let bucket = try KeyValue(jetStream, bucket: "watched")
        try await bucket.createOrCheck()
        _ = try await bucket.put("x", bytes("1"))
        _ = try await bucket.put("y", bytes("2"))
        try await bucket.delete("y")
        let told = Collector<String>()
        let watch = try bucket.watch { event in
            switch event {
            case .entry(let entry):
                told.add("\(entry.key)=\(entry.isDeleted ? "-" : String(decoding: entry.value, as: UTF8.self))")
            case .caughtUp: told.add("caught up")
            case .failed(let error): told.add(error.description)
            }
        }
        #expect(await told.wait { $0.contains("caught up") })
        _ = try await bucket.put("z", bytes("3"))
        #expect(await told.wait(count: 4))
        #expect(told.values == ["x=1", "y=-", "caught up", "z=3"])
        watch.close()
        await jetStream.connection.close()
    }
}
