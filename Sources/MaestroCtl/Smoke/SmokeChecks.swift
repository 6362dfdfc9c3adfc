import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// What the installation stands on.
extension Smoke {
    func checkJetStream() async throws -> String {
        do {
            let account = try await client.jetStream.accountInfo()
            return Printable.count(Int(account["streams"]?.intValue ?? 0), "stream")
        } catch {
            throw PoolClient.failure(error, "JetStream")
        }
    }

    /// They are only looked at: a maestro makes them.
    func checkStreams() async throws -> String {
        let streams = StreamsCommand.streams(client.names).map(\.name)
        for stream in streams {
            do {
                _ = try await client.jetStream.streamInfo(stream)
            } catch {
                throw PoolClient.failure(error, "stream \(stream)")
            }
        }
        try await PoolStreams(names: client.names, limits: .standard).ensureAll(client.jetStream)
        return streams.joined(separator: " ")
    }

    func checkMaestro() async throws -> String {
        let status = try await client.api.status()
        return "on \(status.host), process \(status.processID), version \(status.version)"
    }

    /// A heartbeat from each worker that the leader knows, from now on.
    func checkHeartbeats() async throws -> String {
        let expected = Set(try await cards())
        guard !expected.isEmpty else { throw SmokeFailure("no worker is there; start gpu-worker on a card") }
        let mailbox = Mailbox<GPUID?>()
        let subscription = try client.connection.subscribe(client.names.heartbeat) { message in
            do {
                mailbox.sendOutcome(try Heartbeat(parsing: message.payload).gpu)
            } catch {
                // Anybody may publish there; only real heartbeats count.
            }
        }
        defer { subscription.cancel() }
        let timer = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(nil) }
        timer.arm(after: deadline)
        defer { timer.cancel() }
        var heard: Set<GPUID> = []
        return try await withTaskCancellationHandler {
            while true {
                for card in await mailbox.receive() {
                    guard let card else {
                        let silent = expected.subtracting(heard).sorted().map(\.text).joined(separator: ", ")
                        throw SmokeFailure("no heartbeat from card \(silent)")
                    }
                    heard.insert(card)
                }
                if heard.isSuperset(of: expected) {
                    return "card " + expected.sorted().map(\.text).joined(separator: ", ")
                }
            }
        } onCancel: {
            mailbox.sendOutcome(nil)
        }
    }
}

/// The ways a job can end.
extension Smoke {
    func checkJob(on card: GPUID) async throws -> String {
        let script = """
            set -e
            file="$GPU_CACHE_DIR/$TASK_ID"
            echo "$GPU_ID" > "$file"
            cat "$file"
            rm "$file"
            echo OK
            """
        let id = try await submit(
            "card-\(card)",
            ["type": "shell", "shell": .string(script), "gpu": card.json, "timeout": 30]
        )
        let record = try await end(of: id)
        try expect(record, .done)
        let output = try await output(of: record)
        guard output.hasSuffix("\nOK\n") else { throw SmokeFailure("\(id) printed \(JSONText.quoted(output)), not OK") }
        guard record.record.gpu == card else {
            throw SmokeFailure("\(id) is pinned to card \(card) and ran on \(record.record.gpu?.text ?? "none")")
        }
        return "wrote a file in its cache, printed OK"
    }

    func checkRetries() async throws -> String {
        let id = try await submit("retries", ["cmd": ["/bin/false"], "max_retries": 2, "timeout": 30])
        let record = try await end(of: id)
        try expect(record, .failed)
        let own = record.record.failures
        guard own == 3 else { throw SmokeFailure("\(id) was tried \(own) times; it should be 3") }
        return "3 attempts, then failed"
    }

    func checkTimeout() async throws -> String {
        let id = try await submit("timeout", ["cmd": ["/bin/sleep", "600"], "max_retries": 0, "timeout": 1])
        let record = try await end(of: id)
        try expect(record, .failed)
        guard record.record.outcome?.code == .timeout else {
            throw SmokeFailure("\(id) failed for another reason: \(record.record.reason)")
        }
        return record.record.reason
    }

    /// The job starts children in every way that could escape: in the background, and as a daemon in a session of its
    /// own. Another job on the same card then looks for them, so that the worker's host does not matter.
    func checkCancel() async throws -> String {
        let script = """
            sleep 600 & echo "child $!"
            setsid sh -c 'sleep 600 & echo "child $!"'
            echo ready
            wait
            """
        let id = try await submit(
            "cancel",
            ["type": "shell", "shell": .string(script), "max_retries": 0, "timeout": 300]
        )
        let (card, children) = try await started(id)
        let state = try await client.api.cancel(id, reason: "maestroctl smoke")
        guard state == .cancelled || state == .running else {
            throw SmokeFailure("\(id) could not be cancelled: it is \(state.rawValue)")
        }
        try expect(try await end(of: id), .cancelled)
        let search = """
            for pid in \(children.joined(separator: " ")); do
                if tr '\\0' '\\n' < "/proc/$pid/environ" 2>/dev/null | grep -qx 'TASK_ID=\(id)'; then echo "$pid lives"; fi
            done
            echo searched
            """
        let finder = try await submit(
            "search",
            ["type": "shell", "shell": .string(search), "gpu": card.json, "timeout": 30]
        )
        let found = try await end(of: finder)
        try expect(found, .done)
        let output = try await output(of: found)
        guard output == "searched\n" else {
            throw SmokeFailure("children of \(id) are left: \(JSONText.quoted(output))")
        }
        return "its \(children.count) child processes are gone"
    }

    /// Waits until the job has told of its children.
    private func started(_ id: JobID) async throws -> (card: GPUID, children: [String]) {
        struct Ready: Error {
            let card: GPUID
            let children: [String]
        }
        var follow = JobFollow(client, [id], showsOutput: true)
        var text = ""
        var card: GPUID?
        do {
            _ = try await follow.run(deadline: deadline, catchesInterrupts: false) { update in
                switch update {
                case .record(let stored): card = stored.record.gpu
                case .output(let chunk): if chunk.stream == .standardOutput { text += chunk.text }
                case .unknown, .trouble: break
                }
                let lines = text.split(separator: "\n")
                guard let card, lines.last == "ready" else { return }
                let children = lines.filter { $0.hasPrefix("child ") }.map { String($0.dropFirst("child ".count)) }
                throw Ready(card: card, children: children)
            }
        } catch let ready as Ready {
            guard ready.children.count == 2 else {
                throw SmokeFailure("\(id) told of \(ready.children.count) children, not 2")
            }
            return (ready.card, ready.children)
        }
        throw SmokeFailure("\(id) ended before it was cancelled, or its output did not come: \(JSONText.quoted(text))")
    }

    func checkRefusal() async throws -> String {
        let id = try await submit("refused", ["cmd": []])
        let record = try await end(of: id)
        try expect(record, .rejected)
        guard !record.record.reason.isEmpty else { throw SmokeFailure("\(id) was refused without a reason") }
        return record.record.reason
    }

    /// The second submission comes without a message id, so that it is the maestro that has to know it.
    func checkDuplicate() async throws -> String {
        let fields: JSONObject = ["cmd": ["/bin/echo", "once"], "timeout": 30]
        let id = try await submit("twice", fields)
        let first = try await end(of: id)
        try expect(first, .done)
        let mailbox = Mailbox<Bool>()
        let subscription = try client.connection.subscribe(client.names.maestroEvent("state")) { message in
            do {
                let event = try JSON(parsing: message.payload)
                guard event["event"] == "duplicate", event["task_id"]?.stringValue == id.text else { return }
                mailbox.sendOutcome(true)
            } catch {
                // Not an event of a maestro.
            }
        }
        defer { subscription.cancel() }
        try await client.connection.flush(deadline: .seconds(5))
        var task = fields
        task["task_id"] = .string(id.text)
        task["priority"] = 100
        try await publish(JSON.object(task), messageID: nil)
        let isTold = await withTaskCancellationHandler {
            await mailbox.receive().first ?? false
        } onCancel: {
            mailbox.close()
        }
        guard isTold else { throw CancellationError() }
        guard let now = try await client.records.read(id), now.sequence == first.sequence, now.record.tries == 1 else {
            throw SmokeFailure("\(id) changed after its end")
        }
        return "the second was dropped, 1 attempt in all"
    }
}

/// Text from outside for a message: quoted and shortened.
enum JSONText {
    static func quoted(_ text: String) -> String {
        Printable.shortened(String(decoding: JSON.string(text).encoded(), as: UTF8.self), to: 200)
    }
}
