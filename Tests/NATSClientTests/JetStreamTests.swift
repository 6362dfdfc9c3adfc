import Synchronization
import Testing
import WireJSON

@testable import NATSClient

@Suite(.timeLimit(.minutes(2)))
struct JetStreamTests {
    @Test func publishReadAndDelete() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let outcome = await jetStream.publish(bytes("hello"), to: "records.a", headers: ["K": "v"])
        let ack = try #require(outcome.ack)
        #expect(ack == PublishAck(stream: "RECORDS", sequence: 1, isDuplicate: false))
        let message = try #require(try await jetStream.lastMessage(stream: "RECORDS", subject: "records.a"))
        #expect(message.subject == "records.a")
        #expect(message.payload == bytes("hello"))
        #expect(message.headers["K"] == "v")
        #expect(message.timestamp > 1_700_000_000_000_000_000)
        #expect(try await jetStream.directGet(stream: "RECORDS", subject: "records.a") == message)
        #expect(try await jetStream.message(stream: "RECORDS", sequence: 1) == message)
        #expect(try await jetStream.lastMessage(stream: "RECORDS", subject: "records.b") == nil)
        #expect(try await jetStream.directGet(stream: "RECORDS", subject: "records.b") == nil)
        #expect(try await jetStream.message(stream: "RECORDS", sequence: 7) == nil)
        #expect(try await jetStream.deleteMessage(stream: "RECORDS", sequence: 1))
        #expect(try await !jetStream.deleteMessage(stream: "RECORDS", sequence: 1))
        #expect(try await !jetStream.deleteMessage(stream: "RECORDS", sequence: 7))
        #expect(try await jetStream.lastMessage(stream: "RECORDS", subject: "records.a") == nil)
        for number in 1...2 { #expect(await jetStream.publish(bytes("\(number)"), to: "log.\(number)").ack != nil) }
        let next = { try await jetStream.nextMessage(stream: "LOG", subject: $0, from: $1) }
        #expect(try await next("log.>", 2)?.subject == "log.2")
        #expect(try await next("log.2", 1)?.sequence == 2)
        #expect(try await next("log.1", 2) == nil)
        let missing = await #expect(throws: JetStreamError.self) {
            try await jetStream.lastMessage(stream: "NOPE", subject: "x")
        }
        #expect(missing?.apiError?.isStreamNotFound == true)
        await jetStream.connection.close()
    }

    @Test func duplicatesByMessageID() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let first = await jetStream.publish([1], to: "log.a", messageID: "x:1").ack
        let second = await jetStream.publish([1], to: "log.a", messageID: "x:1").ack
        #expect(first?.isDuplicate == false)
        #expect(second?.isDuplicate == true)
        #expect(first?.sequence == second?.sequence)
        #expect(try await jetStream.streamInfo("LOG").messages == 1)
        await jetStream.connection.close()
    }

    @Test func twentyThousandPipelinedPublishesAreAllAcknowledged() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let count = 20_000
        let acks = Mutex<Set<UInt64>>([])
        let done = Collector<PublishOutcome>()
        let left = Mutex(count)
        for number in 0..<count {
            jetStream.publish(bytes("m\(number)"), to: "log.p", messageID: "p:\(number)") { outcome in
                if let ack = outcome.ack { acks.withLock { _ = $0.insert(ack.sequence) } }
                let isLast = left.withLock {
                    $0 -= 1; return $0 == 0
                }
                if isLast || outcome.ack == nil { done.add(outcome) }
            }
        }
        #expect(await done.wait { _ in left.withLock { $0 == 0 } })
        #expect(done.values.compactMap(\.unknownError).isEmpty)
        #expect(acks.withLock { $0.count } == count)
        #expect(try await jetStream.streamInfo("LOG").messages == UInt64(count))
        #expect(jetStream.connection.requests.count == 0)
        await jetStream.connection.close()
    }

    @Test func compareAndSetConflicts() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        func set(_ text: String, expected: UInt64) async -> CompareAndSetOutcome {
            await jetStream.compareAndSet(
                bytes(text),
                to: "records.a",
                stream: "RECORDS",
                expected: expected,
                isOurs: { $0.payload == bytes(text) },
                until: .now + .seconds(20)
            )
        }
        #expect(await set("one", expected: 0) == .stored(sequence: 1))
        #expect(await set("two", expected: 1) == .stored(sequence: 2))
        guard case .conflict(let record?) = await set("three", expected: 1) else {
            return #expect(Bool(false), "no conflict")
        }
        #expect(record.payload == bytes("two"))
        #expect(record.sequence == 2)
        #expect(await set("four", expected: 0) == .conflict(record))
        // The same content again: as when the first answer was lost.
        #expect(await set("two", expected: 1) == .stored(sequence: 2))
        #expect(try await jetStream.deleteMessage(stream: "RECORDS", sequence: 2))
        #expect(await set("five", expected: 2) == .conflict(nil))
        await jetStream.connection.close()
    }

    @Test func aLostAnswerIsResolvedAsStored() async throws {
        let server = try TestServer()
        var jetStream = try await server.jetStream()
        jetStream.deadline = .milliseconds(300)
        let first = await jetStream.publish(bytes("one"), to: "records.a").ack
        #expect(first?.sequence == 1)
        // The frozen server gets the write, but answers only after the deadline.
        server.freeze()
        let lost = await jetStream.publish(bytes("two"), to: "records.a", expectedLastSubjectSequence: 1)
        #expect(lost.unknownError?.code == .timeout)
        server.thaw()
        let resolved = await jetStream.compareAndSet(
            bytes("two"),
            to: "records.a",
            stream: "RECORDS",
            expected: 1,
            isOurs: { $0.payload == bytes("two") },
            until: .now + .seconds(30)
        )
        #expect(resolved == .stored(sequence: 2))
        #expect(try await jetStream.streamInfo("RECORDS").lastSequence == 2)
        await jetStream.connection.close()
    }

    @Test func aPublishAcrossARestartBecomesDefinite() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        #expect(await jetStream.publish([0], to: "log.a").ack != nil)
        server.kill()
        async let outcome = jetStream.publishUntilDefinite(
            [1],
            to: "log.a",
            messageID: "r:1",
            until: .now + .seconds(60)
        )
        try server.start()
        #expect(await outcome.ack?.stream == "LOG")
        let expired = await jetStream.publishUntilDefinite([1], to: "no.stream", until: .now + .milliseconds(200))
        #expect(expired.unknownError?.code == .noResponders)
        await jetStream.connection.close()
    }

    @Test func noStreamAndNoJetStreamAreRecognised() async throws {
        let server = try TestServer(jetStream: false)
        let jetStream = JetStream(try await server.connect(), deadline: .seconds(60))
        #expect(await jetStream.publish([], to: "nowhere").unknownError?.code == .noResponders)
        let off = await #expect(throws: JetStreamError.self) { try await jetStream.accountInfo() }
        guard case .unknown(let error)? = off else { return #expect(Bool(false), "\(String(describing: off))") }
        #expect(error.code == .noResponders)
        await jetStream.connection.close()
    }

    @Test func unsendableMessagesAreRefusedAtOnce() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let until = ContinuousClock.now + .seconds(60)
        #expect(await jetStream.publishUntilDefinite([], to: "a b", until: until).refusal?.errorCode == 0)
        let large = [UInt8](repeating: 1, count: 2 << 20)
        #expect(await jetStream.publishUntilDefinite(large, to: "log.a", until: until).refusal != nil)
        #expect(await jetStream.publish([], to: "log.a", messageID: "a\nb").refusal != nil)
        await jetStream.connection.close()
    }

    @Test func streamsAreCheckedAgainstWhatWasAsked() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let config: JSON = ["name": "S", "subjects": ["s.*"], "storage": "memory", "max_msgs": 10]
        _ = try await jetStream.createOrCheckStream(config)
        _ = try await jetStream.createOrCheckStream(config)
        let other = await #expect(throws: JetStreamError.self) {
            try await jetStream.createOrCheckStream([
                "name": "S", "subjects": ["s.*"], "storage": "memory", "max_msgs": 11,
            ])
        }
        guard case .configurationDiffers(_, let differences)? = other else {
            return #expect(Bool(false), "\(String(describing: other))")
        }
        #expect(differences == [ConfigurationDifference(field: "max_msgs", asked: 11, actual: 10)])
        let dropped = await #expect(throws: JetStreamError.self) {
            try await jetStream.createOrCheckStream(["name": "T", "subjects": ["t.*"], "no_such_setting": 1])
        }
        // Recent servers refuse a field that they do not know where older ones drop it.
        #expect(dropped?.description.contains("no_such_setting") == true || dropped?.apiError != nil)
        #expect(try await jetStream.streamNames(subject: "s.1") == ["S"])
        #expect(try await jetStream.streamNames().contains("RECORDS"))
        let updated = try await jetStream.updateStream(
            ["name": "S", "subjects": ["s.*"], "storage": "memory", "max_msgs": 12])
        #expect(updated.config["max_msgs"]?.intValue == 12)
        #expect(try await jetStream.deleteStream("S"))
        #expect(try await !jetStream.deleteStream("S"))
        await jetStream.connection.close()
    }

    @Test func consumersAreMadeAnew() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        #expect(await jetStream.publish([1], to: "log.a").ack != nil)
        let config: JSON = [
            "durable_name": "D", "ack_policy": "explicit", "filter_subject": "log.a", "ack_wait": 30_000_000_000,
        ]
        let made = try await jetStream.createConsumer(stream: "LOG", config)
        #expect(made.name == "D")
        #expect(made.pending == 1)
        _ = try await jetStream.recreateConsumer(stream: "LOG", config)
        #expect(try await jetStream.consumerInfo(stream: "LOG", "D").name == "D")
        #expect(try await jetStream.deleteConsumer(stream: "LOG", "D"))
        #expect(try await !jetStream.deleteConsumer(stream: "LOG", "D"))
        let missing = await #expect(throws: JetStreamError.self) {
            try await jetStream.consumerInfo(stream: "LOG", "D")
        }
        #expect(missing?.apiError?.isConsumerNotFound == true)
        await jetStream.connection.close()
    }
}
