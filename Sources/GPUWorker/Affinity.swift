import CProcess
import ServiceSupport

/// The processors that this process and everything it starts may use.
enum Affinity {
    /// - Parameter list: processors as the kernel lists them: `0-1,3`.
    static func restrict(to list: String) throws(FatalError) {
        let processors = try parse(list)
        var mask = [UInt8](repeating: 0, count: 128)
        for processor in processors { mask[processor / 8] |= 1 << UInt8(processor % 8) }
        let result = unsafe cprocess_restrict_to_processors(mask, mask.count)
        guard result == 0 else {
            throw FatalError(
                .configuration,
                "GPU_WORKER_CPUSET: this machine gives none of the processors \(list) to this process (see nproc)"
            )
        }
    }

    private static func parse(_ list: String) throws(FatalError) -> [Int] {
        var processors: [Int] = []
        for part in list.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2, first <= last,
                (0..<1024).contains(first), last < 1024
            else {
                throw FatalError(
                    .configuration,
                    "GPU_WORKER_CPUSET: \"\(list)\" is not a list of processors such as 0-1,3"
                )
            }
            processors += first...last
        }
        return processors
    }
}
