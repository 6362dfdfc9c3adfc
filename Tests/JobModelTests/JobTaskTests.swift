import Testing

import JobModel

@Suite struct JobTaskTests {
    private func parse(_ text: String) throws(TaskRefusal) -> JobTask { try JobTask(submission: Array(text.utf8)) }

    @Test func readsTheSmallestTasks() throws {
        #expect(try parse(#"{"cmd":["true"]}"#).command == .arguments(["true"]))
        #expect(try parse(#"{"type":"shell","shell":"echo OK"}"#).command == .shell("echo OK"))
    }

    @Test func readsEveryField() throws {
        let task = try parse(
            #"""
            {"task_id":"a-1","type":"cmd","cmd":["x","y"],"gpu":"rig1-3","cwd":"models","env":{"A":"b","N":5},
             "timeout":1.5,"max_retries":0,"priority":-7,"max_wait":60,"retry_of":"a-0","submitted_at":12.5,"new":[1],
             "cache_key":["models/b/","./a","models/b"]}
            """#
        )
        #expect(task.id?.text == "a-1")
        #expect(task.gpu?.text == "rig1-3")
        #expect(task.workingDirectory == "models")
        #expect(task.environment == [.init(name: "A", value: "b"), .init(name: "N", value: "5")])
        #expect(task.timeout == .milliseconds(1500))
        #expect(task.maxRetries == 0)
        #expect(task.priority == -7)
        #expect(task.maxWait == .seconds(60))
        #expect(task.retryOf?.text == "a-0")
        #expect(task.submittedAt == 12.5)
        #expect(task.cacheKeys.map(\.path) == ["a", "models/b"])
        #expect(try parse(#"{"cmd":["a"],"cache_key":"/mnt/x"}"#).cacheKeys.map(\.path) == ["/mnt/x"])
        #expect(try parse(#"{"cmd":["a"],"cache_key":null}"#).cacheKeys.isEmpty)
    }

    /// What is admitted can be read again wherever the protocol puts it.
    @Test func aTaskNestedAsDeepAsIsAllowedFitsIntoItsRunMessage() throws {
        func task(_ levels: Int) -> [UInt8] {
            let nested = String(repeating: "[", count: levels - 1) + String(repeating: "]", count: levels - 1)
            return Array(#"{"cmd":["true"],"x":\#(nested)}"#.utf8)
        }
        #expect(throws: TaskRefusal.self) { try JobTask(submission: task(TaskLimits.json.depth + 1)) }
        let deepest = task(TaskLimits.json.depth)
        _ = try JobTask(submission: deepest)
        var ids = IdentifierSource(seed: 1)
        var record = JobRecord(
            admitting: try #require(JobID("deep")),
            submission: deepest,
            digest: "",
            order: 1,
            limits: .none,
            op: OperationID(from: &ids),
            at: Timestamp(nanoseconds: 0),
            submitted: 0
        )
        let gpu = try #require(GPUID("0"))
        let schedule = JobTransition.schedule(gpu: gpu, attempt: AttemptID(from: &ids), owner: Incarnation(from: &ids))
        try record.apply(schedule, op: OperationID(from: &ids), at: Timestamp(nanoseconds: 0))
        let message = RunMessage(record: record, sequence: 1)
        #expect(try RunMessage(parsing: message.encoded(), enqueueSubject: "q") == message)
    }

    /// Text, and a word that the reason has to hold so that a person knows what to change.
    static let refused: [(String, String)] = [
        ("", "empty"), ("{", "ends too early"), ("[]", "an array"), ("{}", "cmd"), (#"{"cmd":[]}"#, "no program"),
        (#"{"cmd":[""]}"#, "no program"), (#"{"cmd":"true"}"#, "array"), (#"{"cmd":["a",1]}"#, "cmd[1]"),
        (#"{"cmd":["a\u0000"]}"#, "NUL"), (#"{"shell":"x"}"#, "\"type\":\"shell\""), (#"{"type":"shell"}"#, "shell"),
        (#"{"type":"shell","shell":" \n"}"#, "empty"), (#"{"type":"docker","cmd":["a"]}"#, "docker"),
        (#"{"type":7,"cmd":["a"]}"#, "type"), (#"{"cmd":["a"],"timeout":-1}"#, "timeout"),
        (#"{"cmd":["a"],"timeout":0}"#, "timeout"), (#"{"cmd":["a"],"timeout":1e300}"#, "timeout"),
        (#"{"cmd":["a"],"timeout":1e999}"#, "timeout"), (#"{"cmd":["a"],"timeout":NaN}"#, "not valid JSON"),
        (#"{"cmd":["a"],"timeout":"5"}"#, "timeout"), (#"{"cmd":["a"],"max_retries":1.5}"#, "max_retries"),
        (#"{"cmd":["a"],"max_retries":101}"#, "0 to 100"), (#"{"cmd":["a"],"gpu":-1}"#, "gpu"),
        (#"{"cmd":["a"],"gpu":"a b"}"#, "gpu"), (#"{"cmd":["a"],"gpu":1.5}"#, "gpu"),
        (#"{"cmd":["a"],"env":{"A=B":"c"}}"#, "'='"), (#"{"cmd":["a"],"env":{"":"c"}}"#, "without a name"),
        (#"{"cmd":["a"],"env":{"A":null}}"#, "\"A\""), (#"{"cmd":["a"],"env":[]}"#, "env"),
        (#"{"cmd":["a"],"cwd":"../x"}"#, "'..'"), (#"{"cmd":["a"],"cwd":""}"#, "cwd"),
        (#"{"cmd":["a"],"task_id":"a.b"}"#, "letters"), (#"{"cmd":["a"],"task_id":"a b"}"#, "letters"),
        (#"{"cmd":["a"],"task_id":"*"}"#, "letters"), (#"{"cmd":["a"],"task_id":"../x"}"#, "letters"),
        (#"{"cmd":["a"],"task_id":""}"#, "empty"), (#"{"cmd":["a"],"task_id":5}"#, "string"),
        (#"{"cmd":["a"],"priority":1000}"#, "priority"), (#"{"cmd":["a"],"cache_key":7}"#, "cache_key"),
        (#"{"cmd":["a"],"cache_key":""}"#, "names nothing"), (#"{"cmd":["a"],"cache_key":["a/../b"]}"#, "'..'"),
        (#"{"cmd":["a"],"cache_key":"a\nb"}"#, "control"), (#"{"cmd":["a"],"cache_key":[1]}"#, "strings"),
        (#"{"cmd":["a"],"cache_key":["1","2","3","4","5","6","7","8","9"]}"#, "at most 8"),
    ]

    @Test(arguments: refused) func refusesWithAReason(text: String, word: String) {
        let error = #expect(throws: TaskRefusal.self) { try parse(text) }
        #expect(error?.reason.contains(word) == true, "\(error?.reason ?? "accepted")")
    }

    @Test func aRefusalNamesTheJobWhereItCan() {
        let error = #expect(throws: TaskRefusal.self) { try parse(#"{"task_id":"j1","cmd":[]}"#) }
        #expect(error?.id?.text == "j1")
    }

    @Test func anOversizedSubmissionIsRefusedWithItsName() {
        let text = #"{"task_id":"big","cmd":["a"],"x":"\#(String(repeating: "y", count: 300_000))"}"#
        let error = #expect(throws: TaskRefusal.self) { try parse(text) }
        #expect(error?.id?.text == "big")
        #expect(error?.reason.contains("262144") == true)
    }

    @Test func anArgumentLongerThanTheKernelTakesIsRefused() {
        let text = #"{"cmd":["a","\#(String(repeating: "y", count: 131_072))"]}"#
        #expect(throws: TaskRefusal.self) { try parse(text) }
    }
}
