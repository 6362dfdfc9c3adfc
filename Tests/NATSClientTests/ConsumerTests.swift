import Synchronization
import Testing
import WireJSON

@testable import NATSClient

@Suite(.serialized, .timeLimit(.minutes(3)))
struct PullConsumerTests {
    private static let config: JSON = [
        "durable_name": "WORK", "ack_policy": "explicit", "ack_wait": 30_000_000_000, "max_deliver": -1,
        "filter_subject": "log.work",
    ]

    private struct Setup {
        let jetStream: JetStream
        let consumer: PullConsumer
        let messages: Collector<JetStreamMessage>
        let events: Collector<PullConsumerEvent>
    }

    private func setUp(_ server: TestServer, config: JSON = config, create: Bool = true, patient: Bool = false)
        async throws -> Setup
    {
        let jetStream = try await server.jetStream()
        if create { _ = try await jetStream.createConsumer(stream: "LOG", config) }
        let messages = Collector<JetStreamMessage>()
        let events = Collector<PullConsumerEvent>()
        var options = PullConsumer.Options()
        options.capacity = 50
        // Short, for tests that wait for a silence; long, for tests in which a busy machine must not look like one.
        options.expires = patient ? .seconds(60) : .seconds(2)
        options.heartbeat = patient ? .seconds(30) : .milliseconds(500)
        let consumer = try PullConsumer(
            jetStream,
            stream: "LOG",
            consumer: "WORK",
            options: options,
            onEvent: { events.add($0) },
            handler: { messages.add($0) }
        )
        return Setup(jetStream: jetStream, consumer: consumer, messages: messages, events: events)
    }

    private func publish(_ range: Range<Int>, _ jetStream: JetStream) async {
        for number in range {
            let outcome = await jetStream.publishUntilDefinite(
                bytes("\(number)"),
                to: "log.work",
                messageID: "w:\(number)",
                until: .now + .seconds(60)
            )
            #expect(outcome.ack != nil)
        }
    }

    private static func texts(_ messages: [JetStreamMessage]) -> [String] {
        messages.map { String(decoding: $0.payload, as: UTF8.self) }
    }

    @Test func deliversWhatIsAskedForAndNoMore() async throws {
        let server = try TestServer()
        let setup = try await setUp(server, patient: true)
        await publish(0..<300, setup.jetStream)
        setup.consumer.request(120)
        #expect(await setup.messages.wait(count: 120))
        try await setup.jetStream.connection.flush(deadline: .seconds(10))
        #expect(setup.messages.values.count == 120)
        #expect(setup.consumer.demand == 0)
        setup.consumer.request(1000)
        #expect(await setup.messages.wait(count: 300))
        #expect(Self.texts(setup.messages.values) == (0..<300).map(String.init))
        for message in setup.messages.values { try message.ack() }
        let first = try #require(setup.messages.values.first)
        #expect(first.metadata.stream == "LOG")
        #expect(first.metadata.consumer == "WORK")
        #expect(first.metadata.deliveryCount == 1)
        #expect(first.metadata.streamSequence == 1)
        #expect(first.metadata.timestamp > 1_700_000_000_000_000_000)
        #expect(first.headers["Nats-Msg-Id"] == "w:0")
        #expect(setup.events.values.isEmpty)
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func aRequestIsSentAgainWhenItExpires() async throws {
        let server = try TestServer()
        let setup = try await setUp(server)
        setup.consumer.request(10)
        let expired = Collector<NATSMessage>()
        // What the server tells another reader of the same kind of inbox: a request of ours ran out.
        let watch = try setup.jetStream.connection.subscribe(setup.consumer.inbox + ".*") { message in
            if message.status == 408 { expired.add(message) }
        }
        #expect(await expired.wait(count: 2))
        await publish(0..<3, setup.jetStream)
        #expect(await setup.messages.wait(count: 3))
        withExtendedLifetime(watch) {}
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func survivesARestartOfTheServer() async throws {
        let server = try TestServer()
        let setup = try await setUp(server)
        setup.consumer.request(1000)
        await publish(0..<5, setup.jetStream)
        #expect(await setup.messages.wait(count: 5))
        for message in setup.messages.values { try await message.ackSync(deadline: .seconds(10)) }
        server.kill()
        try server.start()
        await publish(5..<10, setup.jetStream)
        // A killed server may forget recent acks and deliver those messages again.
        #expect(await setup.messages.wait { Set(Self.texts($0)).isSuperset(of: (5..<10).map(String.init)) })
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func aFrozenServerIsAskedAgain() async throws {
        let server = try TestServer()
        let setup = try await setUp(server)
        setup.consumer.request(10)
        await publish(0..<1, setup.jetStream)
        #expect(await setup.messages.wait(count: 1))
        server.freeze()
        #expect(await setup.events.wait { $0.contains(.missedHeartbeats) })
        server.thaw()
        await publish(1..<3, setup.jetStream)
        #expect(await setup.messages.wait(count: 3))
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func aDeletedConsumerIsReportedAndWorksWhenMadeAnew() async throws {
        let server = try TestServer()
        let setup = try await setUp(server)
        setup.consumer.request(10)
        await publish(0..<1, setup.jetStream)
        #expect(await setup.messages.wait(count: 1))
        #expect(try await setup.jetStream.deleteConsumer(stream: "LOG", "WORK"))
        #expect(await setup.events.wait { $0.contains(.consumerMissing) })
        _ = try await setup.jetStream.createConsumer(stream: "LOG", Self.config)
        setup.consumer.retryNow()
        // Made anew, it starts with everything that the stream holds.
        #expect(await setup.messages.wait(count: 2))
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func aConsumerThatNeverWasIsReported() async throws {
        let server = try TestServer()
        let setup = try await setUp(server, create: false)
        setup.consumer.request(10)
        #expect(await setup.events.wait { $0.contains(.consumerMissing) })
        await publish(0..<1, setup.jetStream)
        _ = try await setup.jetStream.createConsumer(stream: "LOG", Self.config)
        #expect(await setup.messages.wait(count: 1))
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func aRefusedRequestIsReported() async throws {
        let server = try TestServer()
        var config = try #require(Self.config.objectValue)
        config["max_batch"] = 5
        let setup = try await setUp(server, config: .object(config))
        setup.consumer.request(10)
        #expect(
            await setup.events.wait {
                $0.contains { if case .refused(409, let text) = $0 { text.contains("MaxRequestBatch") } else { false } }
            }
        )
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func naksRedeliverAndTermEnds() async throws {
        let server = try TestServer()
        let setup = try await setUp(server)
        setup.consumer.request(100)
        await publish(0..<2, setup.jetStream)
        #expect(await setup.messages.wait(count: 2))
        let clock = ContinuousClock()
        let start = clock.now
        try setup.messages.values[0].inProgress()
        try setup.messages.values[0].nak(delay: .milliseconds(700))
        try setup.messages.values[1].nak()
        #expect(await setup.messages.wait(count: 3))
        let again = setup.messages.values[2]
        #expect(again.payload == bytes("1"))
        #expect(again.metadata.deliveryCount == 2)
        try again.term()
        #expect(await setup.messages.wait(count: 4))
        let delayed = setup.messages.values[3]
        #expect(delayed.payload == bytes("0"))
        #expect(delayed.metadata.deliveryCount == 2)
        #expect(clock.now - start >= .milliseconds(700))
        try await delayed.ackSync(deadline: .seconds(10))
        let info = try await setup.jetStream.consumerInfo(stream: "LOG", "WORK")
        #expect(info.ackPending == 0)
        setup.consumer.close()
        await setup.jetStream.connection.close()
    }

    @Test func badOptionsAreRefused() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        var options = PullConsumer.Options()
        options.heartbeat = .seconds(20)
        let error = #expect(throws: NATSError.self) {
            try PullConsumer(
                jetStream,
                stream: "LOG",
                consumer: "X",
                options: options,
                onEvent: { _ in },
                handler: { _ in }
            )
        }
        #expect(error?.code == .badOption)
        #expect(throws: NATSError.self) {
            try PullConsumer(jetStream, stream: "LOG", consumer: "a.b", onEvent: { _ in }, handler: { _ in })
        }
        await jetStream.connection.close()
    }
}

@Suite(.serialized, .timeLimit(.minutes(3)))
struct OrderedConsumerTests {
    private func watch(
        _ jetStream: JetStream,
        _ stream: String,
        _ policy: DeliverPolicy,
        filter: String? = nil,
        headersOnly: Bool = false,
        onMessage: @escaping @Sendable (StoredMessage) -> Void = { _ in }
    ) throws -> (OrderedConsumer, Collector<OrderedConsumerEvent>) {
        let events = Collector<OrderedConsumerEvent>()
        var options = OrderedConsumer.Options()
        options.deliverPolicy = policy
        options.filterSubject = filter
        options.headersOnly = headersOnly
        options.heartbeat = .milliseconds(500)
        let consumer = try OrderedConsumer(jetStream, stream: stream, options: options) { event in
            if case .message(let message, _) = event { onMessage(message) }
            events.add(event)
        }
        return (consumer, events)
    }

    private static func messages(_ events: [OrderedConsumerEvent]) -> [StoredMessage] {
        events.compactMap { if case .message(let message, _) = $0 { message } else { nil } }
    }

    private static func count(_ events: [OrderedConsumerEvent]) -> Int {
        events.reduce(0) { if case .message = $1 { $0 + 1 } else { $0 } }
    }

    private static func caughtUp(_ events: [OrderedConsumerEvent]) -> [UInt64] {
        events.compactMap { if case .caughtUp(let sequence) = $0 { sequence } else { nil } }
    }

    /// Rewrites `subjects` records over and over with numbers that grow; returns the last acked number of each.
    private static func write(_ jetStream: JetStream, rounds: Int, subjects: Int) async -> [Int: Int] {
        await withTaskGroup(of: (Int, Int).self) { group in
            for subject in 0..<subjects {
                group.addTask {
                    var last = -1
                    for round in 0..<rounds {
                        let outcome = await jetStream.publishUntilDefinite(
                            bytes("\(round)"),
                            to: "records.r\(subject)",
                            until: .now + .seconds(60)
                        )
                        if outcome.ack != nil { last = round }
                    }
                    return (subject, last)
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    @Test func aReplayUnderConcurrentWritesIsComplete() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let subjects = 200
        _ = await Self.write(jetStream, rounds: 1, subjects: subjects)
        let before = try await jetStream.streamInfo("RECORDS").lastSequence
        async let writing = Self.write(jetStream, rounds: 40, subjects: subjects)
        let seen = Mutex<[String: String]>([:])
        let (consumer, events) = try watch(jetStream, "RECORDS", .lastPerSubject, filter: "records.*") { message in
            seen.withLock { $0[message.subject] = String(decoding: message.payload, as: UTF8.self) }
        }
        #expect(await events.wait { !Self.caughtUp($0).isEmpty })
        let atCaughtUp = Set(Self.messages(events.values).map(\.subject))
        #expect(atCaughtUp.count == subjects)
        #expect(try #require(Self.caughtUp(events.values).first) >= before)
        let last = await writing
        let isComplete = { @Sendable () -> Bool in
            seen.withLock { seen in last.allSatisfy { seen["records.r\($0.key)"] == "\($0.value)" } }
        }
        #expect(await events.wait { _ in isComplete() })
        let sequences = Self.messages(events.values).map(\.sequence)
        #expect(zip(sequences, sequences.dropFirst()).allSatisfy { $0 < $1 })
        consumer.close()
        await jetStream.connection.close()
    }

    @Test func resumesAfterRestartsWithoutGapOrRepeat() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let (consumer, events) = try watch(jetStream, "LOG", .all, filter: "log.seq")
        let count = 400
        async let writing: Void = {
            for number in 0..<count {
                _ = await jetStream.publishUntilDefinite(
                    bytes("\(number)"),
                    to: "log.seq",
                    messageID: "s:\(number)",
                    until: .now + .seconds(60)
                )
            }
        }()
        for part in 1...3 {
            #expect(await events.wait { Self.count($0) >= part * 80 })
            server.kill()
            try server.start()
        }
        await writing
        #expect(await events.wait { Self.count($0) >= count })
        let texts = Self.messages(events.values).map { String(decoding: $0.payload, as: UTF8.self) }
        #expect(texts == (0..<count).map(String.init))
        #expect(events.values.contains { if case .recreated(.reconnected) = $0 { true } else { false } })
        consumer.close()
        await jetStream.connection.close()
    }

    @Test func startsWhereAsked() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        for number in 1...5 { #expect(await jetStream.publish(bytes("\(number)"), to: "log.a").ack != nil) }
        let (fromFour, later) = try watch(jetStream, "LOG", .byStartSequence(4))
        #expect(await later.wait { Self.caughtUp($0) == [5] })
        #expect(Self.messages(later.values).map(\.sequence) == [4, 5])
        let (new, newEvents) = try watch(jetStream, "LOG", .new, headersOnly: true)
        #expect(await newEvents.wait { !Self.caughtUp($0).isEmpty })
        #expect(Self.messages(newEvents.values).isEmpty)
        #expect(await jetStream.publish(bytes("sixth"), to: "log.a").ack != nil)
        #expect(await newEvents.wait { Self.messages($0).count == 1 })
        let sixth = try #require(Self.messages(newEvents.values).first)
        #expect(sixth.payload.isEmpty)
        #expect(sixth.headers["Nats-Msg-Size"] == "5")
        let (empty, emptyEvents) = try watch(jetStream, "RECORDS", .lastPerSubject)
        #expect(await emptyEvents.wait { Self.caughtUp($0) == [0] })
        for consumer in [fromFour, new, empty] { consumer.close() }
        await jetStream.connection.close()
    }

    @Test func manyLargeMessagesPassUnderFlowControl() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let payload = [UInt8](repeating: 7, count: 100_000)
        for _ in 0..<300 { #expect(await jetStream.publish(payload, to: "log.big").ack != nil) }
        let (consumer, events) = try watch(jetStream, "LOG", .all)
        #expect(await events.wait { Self.caughtUp($0) == [300] })
        #expect(Self.messages(events.values).count == 300)
        consumer.close()
        await jetStream.connection.close()
    }

    @Test func aStreamThatIsMissingOrMadeAnew() async throws {
        let server = try TestServer()
        let jetStream = try await server.jetStream()
        let (consumer, events) = try watch(jetStream, "LATER", .all)
        #expect(
            await events.wait {
                $0.contains { if case .failed(.refused(let error)) = $0 { error.isStreamNotFound } else { false } }
            }
        )
        let config: JSON = ["name": "LATER", "subjects": ["later.*"], "storage": "file"]
        _ = try await jetStream.createOrCheckStream(config)
        for number in 0..<3 { #expect(await jetStream.publish(bytes("\(number)"), to: "later.a").ack != nil) }
        #expect(await events.wait { Self.messages($0).count == 3 })
        #expect(try await jetStream.deleteStream("LATER"))
        _ = try await jetStream.createOrCheckStream(config)
        #expect(await jetStream.publish(bytes("again"), to: "later.a").ack != nil)
        #expect(await events.wait { Self.messages($0).count == 4 })
        #expect(Self.messages(events.values).last?.sequence == 1)
        #expect(events.values.contains { if case .recreated(.streamRolledBack) = $0 { true } else { false } })
        consumer.close()
        await jetStream.connection.close()
    }
}
