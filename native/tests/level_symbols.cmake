# cmake -DNM=<nm> -DOBJECTS=<files> -P level_symbols.cmake
#
# The linker keeps one copy of a function that several objects define as weak (inline functions, templates). If objects of
# different instruction-set levels shared one, code for AVX-512 could run on a processor without it. So an object of a level
# may define nothing weak, and nothing global beyond its table of kernels.
set(checked 0)
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --demangle --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE ";" "," symbols "${symbols}")
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    if(symbol MATCHES "^[0-9a-f]+ [WVu] " OR
       (symbol MATCHES "^[0-9a-f]+ [TDRBGS] " AND NOT symbol MATCHES "_kernels$"))
      message(SEND_ERROR "${object} shares a symbol with the other levels: ${symbol}")
    endif()
    if(symbol MATCHES "_kernels$")
      math(EXPR checked "${checked} + 1")
    endif()
  endforeach()
endforeach()
if(checked EQUAL 0)
  message(FATAL_ERROR "no object defines a table of kernels: nothing was checked")
endif()
message(STATUS "${checked} tables of kernels, no shared symbols")
