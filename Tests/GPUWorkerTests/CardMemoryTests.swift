import Foundation
import GPUTelemetry
import TaskRunner
import Testing

@testable import GPUWorker

/// What is known of a card from one life of its worker to the next.
struct CardMemoryTests {
    private let directory = FileManager.default.temporaryDirectory.appending(
        path: "maestro-memory-\(UUID().uuidString)"
    )
    private let address = PCIAddress(domain: 0, bus: 3, device: 0, function: 0)
    private var file: StateFile { StateFile(directory: directory.path, name: "card.json") }
    private var content: URL { directory.appending(path: "card.json") }

    init() throws { try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true) }

    private func remove() { #expect(throws: Never.self) { try FileManager.default.removeItem(at: directory) } }

    private func load(_ address: PCIAddress? = nil, boot: String = "b1") -> (CardMemory, notice: String?) {
        CardMemory.load(file, of: address ?? self.address, bootID: boot)
    }

    @Test func whatWasKeptIsThereInTheNextLife() throws {
        defer { remove() }
        var (memory, notice) = load()
        #expect(notice == nil && memory.linkBaseline == nil && memory.original.isEmpty)
        try memory.remember(linkBaseline: 8)
        try memory.remember(original: PowerSettings(cap: 145, level: "auto"))
        let (next, _) = load()
        #expect(next.linkBaseline == 8)
        #expect(next.original == PowerSettings(cap: 145, level: "auto"))
        // Nothing of ours is to be put back any more.
        try memory.remember(original: PowerSettings())
        #expect(load().0.original.isEmpty)
        #expect(load().0.linkBaseline == 8)
    }

    @Test func anotherBootForgetsTheSettingsAndAnotherCardAll() throws {
        defer { remove() }
        var (memory, _) = load()
        try memory.remember(linkBaseline: 8)
        try memory.remember(original: PowerSettings(cap: 145))
        let (rebooted, _) = load(boot: "b2")
        #expect(rebooted.original.isEmpty && rebooted.linkBaseline == 8)
        let (other, _) = load(PCIAddress(domain: 0, bus: 4, device: 0, function: 0))
        #expect(other.original.isEmpty && other.linkBaseline == nil)
    }

    @Test(arguments: ["", "[", "{\"pci\":", "\u{0}\u{1}", String(repeating: "x", count: 3 << 20)])
    func aDamagedFileIsToldAndReplaced(text: String) throws {
        defer { remove() }
        try Data(text.utf8).write(to: content)
        var (memory, notice) = load()
        #expect(notice?.contains("card.json") == true)
        try memory.remember(linkBaseline: 4)
        #expect(load().notice == nil)
        #expect(load().0.linkBaseline == 4)
    }

    @Test(arguments: [
        #"{"link_width":99}"#, #"{"link_width":"x","original":7}"#, "[]", #"{"original":{"power_cap_w":-3}}"#,
        #"{"original":{"power_cap_w":1e300}}"#,
    ])
    func nonsenseInTheFileIsNotTaken(text: String) throws {
        defer { remove() }
        let whole = text.replacingOccurrences(of: "{\"", with: #"{"pci":"0000:03:00.0","boot_id":"b1",""#)
        try Data(whole.utf8).write(to: content)
        let (memory, _) = load()
        #expect(memory.linkBaseline == nil && memory.original.isEmpty)
    }

    /// What cannot be kept is not changed.
    @Test func aMemoryThatCannotBeWrittenKeepsWhatItHad() throws {
        var (memory, _) = load()
        remove()
        let error = #expect(throws: TaskRunnerError.self) { try memory.remember(linkBaseline: 8) }
        #expect(error?.description.contains("card.json") == true)
        #expect(memory.linkBaseline == nil)
    }
}
