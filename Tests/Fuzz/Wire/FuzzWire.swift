import WireJSON

@testable import JobModel
@testable import NATSClient

/// Whatever bytes come from the bus: nothing crashes, and what was read and is written again says the same.
///
/// The first byte chooses the reader, the rest is the message.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzWire(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 0 else { return 0 }
    let readers = [
        readJSON, readRecord, readTask, readRun, readControl, readWorkerMessage, readLog, readReport, readStored,
    ]
    let choice = unsafe Int(data[0]) % readers.count
    readers[choice](unsafe Array(UnsafeBufferPointer(start: data + 1, count: count - 1)))
    return 0
}

/// The value of a body, or nil when it refuses its input with an error of ours.
private func read<Value>(_ body: () throws -> Value) -> Value? {
    do {
        return try body()
    } catch {
        // Every refusal can be told.
        precondition(!"\(error)".isEmpty)
        return nil
    }
}

private func readJSON(_ bytes: [UInt8]) {
    let fields = read { try JSONFields(parsing: bytes) }
    // What is only split may still hold a key twice further down.
    guard let json = read({ try JSON(parsing: bytes) }) else { return }
    precondition(read { try JSON(parsing: json.encoded()) } == json)
    precondition((json.objectValue == nil) == (fields == nil))
    for field in fields?.fields ?? [] {
        precondition(read { try JSON(parsing: Array(field.raw)) } == json[field.key])
    }
    for value in json.arrayValue ?? [json] { _ = (value.intValue, value.unsignedValue, value.doubleValue, value.kind) }
}

private func readRecord(_ bytes: [UInt8]) {
    guard let record = read({ try JobRecord(parsing: bytes) }) else { return }
    let again = read { try JobRecord(parsing: record.encoded()) }
    precondition(again?.id == record.id && again?.state == record.state && again?.op == record.op)
    precondition(again?.attempt == record.attempt && again?.owner == record.owner && again?.gpu == record.gpu)
    precondition(again?.submission == record.submission && again?.extra == record.extra)
    precondition(again?.tries == record.tries && again?.lost == record.lost && again?.order == record.order)
    // Once written by us, a record does not change any more by being read and written.
    precondition(again.map { rewritten in read { try JobRecord(parsing: rewritten.encoded()) } == rewritten } == true)
    _ = read { try record.task() }
    if let fence = record.limits.fence {
        let times = [fence.window(grace: .seconds(5)), fence.killTime, fence.interval(grace: .seconds(5))]
        precondition(times.allSatisfy { $0 >= .zero } && fence.patience > fence.limit)
    }
}

private func readTask(_ bytes: [UInt8]) {
    guard let task = read({ try JobTask(submission: bytes) }) else { return }
    if case .arguments(let arguments) = task.command { precondition(arguments.first?.isEmpty == false) }
    precondition(task.timeout.map { $0 > .zero } ?? true)
    precondition(TaskLimits.priority.contains(task.priority))
}

private func readRun(_ bytes: [UInt8]) {
    guard let run = read({ try RunMessage(parsing: bytes, enqueueSubject: "gpu.task.enqueue") }) else { return }
    precondition(run.record.state == .scheduled && run.attempt != nil && run.sequence > 0)
    let again = read { try RunMessage(parsing: run.encoded(), enqueueSubject: "gpu.task.enqueue") }
    precondition(again?.sequence == run.sequence && again?.attempt == run.attempt)
}

private func readControl(_ bytes: [UInt8]) {
    if let lease = read({ try LeaderLease(parsing: bytes) }) {
        let again = read { try LeaderLease(parsing: lease.encoded()) }
        precondition(again?.holder == lease.holder && again?.op == lease.op && lease.duration > .zero)
    }
    if let registration = read({ try WorkerRegistration(parsing: bytes) }) {
        precondition(read { try WorkerRegistration(parsing: registration.encoded()) } == registration)
    }
    if let control = read({ try CardControl(parsing: bytes) }) {
        let again = read { try CardControl(parsing: control.encoded()) }
        precondition(
            again.map { rewritten in read { try CardControl(parsing: rewritten.encoded()) } == rewritten } == true
        )
    }
    if let place = read({ try ResultsPlace(parsing: bytes) }) {
        precondition(read { try ResultsPlace(parsing: place.encoded()) } == place)
    }
}

private func readWorkerMessage(_ bytes: [UInt8]) {
    if let heartbeat = read({ try Heartbeat(parsing: bytes) }) {
        let again = read { try Heartbeat(parsing: heartbeat.encoded()) }
        precondition(again?.running == heartbeat.running && again?.counter == heartbeat.counter)
        precondition(again?.canFence == heartbeat.canFence)
    }
    if let answer = read({ try HeartbeatAnswer(parsing: bytes) }) {
        precondition(read { try HeartbeatAnswer(parsing: answer.json.encoded()) } == answer)
    }
    if let reading = read({ try CardReading(parsing: bytes) }) {
        precondition(reading.temperature.map { (1...149).contains($0) } ?? true)
        precondition(reading.busyPercent.map { (0...100).contains($0) } ?? true)
    }
    _ = read { try WorkerNotice(parsing: bytes) }
}

private func readLog(_ bytes: [UInt8]) {
    guard let chunk = read({ try LogChunk(parsing: bytes) }) else { return }
    precondition(read { try LogChunk(parsing: chunk.encoded()) }?.text == chunk.text)
}

private func readReport(_ bytes: [UInt8]) {
    guard let report = read({ try AttemptReport(journal: JSON(parsing: bytes)) }) else { return }
    let again = read { try AttemptReport(journal: JSON(parsing: report.journalDocument())) }
    precondition(again?.attempt == report.attempt && again?.outcome.code == report.outcome.code)
    for event in [report.doneEvent(), report.errorEvent(state: .failed), report.resultEvent(state: .done)] {
        precondition(read { try JSON(parsing: event) }?["task_id"]?.stringValue == report.job.text)
    }
}

/// What the server itself says: a stored message with its time, its Base64 and its header block.
private func readStored(_ bytes: [UInt8]) {
    _ = NATSHeaders(block: bytes)
    let text = String(decoding: bytes, as: UTF8.self)
    _ = (RFC3339.nanoseconds(text), MessageMetadata(ackSubject: text))
    if let decoded = Base64.decode(text) { precondition(decoded.count <= bytes.count) }
    if let json = read({ try JSON(parsing: bytes) }) {
        _ = (StoredMessage(json), StreamInfo(json), ConsumerInfo(json), JetStreamAPIError(json))
    }
}
