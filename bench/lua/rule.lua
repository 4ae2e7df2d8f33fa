-- A rule's file that accepts every packet and looks at none.
return function() return "accept" end, {}
